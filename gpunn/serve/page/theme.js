// Set the chosen theme, by default that of the system, before the page is painted.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("gpunn-theme");
  } catch {} // storage may be closed to a page
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();

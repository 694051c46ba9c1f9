// Runs before the page is painted: the chosen theme, or that of the system where none was chosen.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("gpunn-theme");
  } catch {} // storage may be closed to a page
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();

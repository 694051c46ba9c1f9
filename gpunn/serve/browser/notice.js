// Explain why a page that was opened as a file stays empty. Not a module: browsers load none for a file.

if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    const error = document.getElementById("error");
    document.getElementById("facts").textContent = "";
    error.hidden = false;
    error.textContent =
      "This page was opened as a file, and browsers run no network from one. Put the folder on a web space, or run " +
      "“python -m http.server” in it and open http://localhost:8000.";
  });
}

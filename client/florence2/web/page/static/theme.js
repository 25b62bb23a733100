// Before the first paint: the chosen theme, or the system's. Not a module, because modules run late.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try { return localStorage.getItem("florence2-theme"); } catch { return null; } // storage may be blocked
  };
  const apply = () => {
    const theme = chosen() ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = theme;
    document.getElementById("theme")?.setAttribute("aria-pressed", String(theme === "dark"));
  };
  dark.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const next = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("florence2-theme", next); } catch { /* for this visit only */ }
      root.dataset.theme = next;
      document.getElementById("theme").setAttribute("aria-pressed", String(next === "dark"));
    });
    apply();
  });
  apply();
})();

// What scrolls sideways can be reached and scrolled with the keyboard.
function makeFocusable() {
  for (const part of document.querySelectorAll("pre > code, .md-typeset__scrollwrap, .md-typeset__table")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}
window.addEventListener("load", makeFocusable);
window.addEventListener("resize", makeFocusable);

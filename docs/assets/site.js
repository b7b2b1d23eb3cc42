// What is wider than the page scrolls: by keys, too, once it can have the focus.
function reachable() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
new ResizeObserver(reachable).observe(document.body);
// The theme wraps tables when the page has been read.
new MutationObserver(reachable).observe(document.querySelector("article"), { childList: true, subtree: true });

// Conveniences only: without this script cells and photos open by their links all the same.
(() => {
  let from = null; // the number whose photos are shown
  const close = () => {
    document.querySelectorAll(".cell.open").forEach((cell) => cell.classList.remove("open"));
    if (from) from.removeAttribute("aria-current");
    from = null;
  };
  // The photos lie at the lower edge of the window, so that the number they are of stays in view.
  const open = (link) => {
    close();
    from = link;
    link.setAttribute("aria-current", "true");
    const cell = document.querySelector(link.getAttribute("href"));
    cell.classList.add("open");
    cell.scrollTop = 0;
    cell.querySelector("h3").focus({ preventScroll: true });
    const hidden = link.getBoundingClientRect().bottom - cell.getBoundingClientRect().top;
    if (hidden > 0) scrollBy({ top: hidden + 24 });
  };

  document.documentElement.classList.add("script"); // from here on the address opens nothing by itself
  const asked = [...document.querySelectorAll(".side a")].find((number) => number.getAttribute("href") === location.hash);
  if (asked) open(asked);

  const box = document.createElement("dialog");
  box.setAttribute("aria-label", "Photo");
  document.body.append(box);
  let link = null;
  const show = (next) => {
    link = next;
    const large = document.querySelector(next.getAttribute("href"));
    box.replaceChildren(...[...large.children].map((child) => child.cloneNode(true)));
    if (!box.open) box.showModal();
    box.querySelector("a").focus();
  };
  addEventListener("click", (event) => {
    const photo = event.target.closest("a.photo");
    const number = event.target.closest(".confusion a, .confused a");
    if (photo) {
      event.preventDefault();
      show(photo);
    } else if (number) {
      event.preventDefault();
      if (number === from) close();
      else open(number);
    } else if (event.target.closest("a.close")) {
      event.preventDefault();
      const back = from;
      close();
      if (back) back.focus({ preventScroll: true });
    } else if (event.target === box || event.target.closest("dialog a")) {
      event.preventDefault();
      box.close();
    }
  });
  box.addEventListener("close", () => link.focus());
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const beside = [...link.closest(".gallery, .also").querySelectorAll("a.photo")];
    show(beside[(beside.indexOf(link) + step + beside.length) % beside.length]);
  });
})();

// Conveniences only: without this script cells and photos open by their links all the same.
(() => {
  const mark = () => document.querySelectorAll(".confusion a").forEach((link) => {
    if (link.getAttribute("href") === location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  });
  addEventListener("hashchange", mark);
  mark();

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
    if (photo) {
      event.preventDefault();
      show(photo);
    } else if (event.target === box || event.target.closest("dialog a")) {
      event.preventDefault();
      box.close();
    }
  });
  box.addEventListener("close", () => link.focus());
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const beside = [...link.closest(".gallery").querySelectorAll("a.photo")];
    show(beside[(beside.indexOf(link) + step + beside.length) % beside.length]);
  });
})();

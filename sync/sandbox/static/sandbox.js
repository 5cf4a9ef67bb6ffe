// Keeps the list fresh without losing what is being typed. Without JavaScript the page reloads itself.
const region = document.querySelector("[data-live]");

async function refresh() {
  const selection = document.getSelection();
  if (document.hidden || region.contains(document.activeElement) || (selection && !selection.isCollapsed)) return;
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("[data-live]");
  if (fresh && fresh.innerHTML !== region.innerHTML) region.replaceChildren(...fresh.childNodes);
}

if (region) setInterval(() => refresh().catch(() => {}), 2000);

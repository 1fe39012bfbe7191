"use strict";
// Fetches this page again and again and takes over what has changed. Whatever stays the same is not touched, so nothing
// flickers, and what is unfolded or focused stays so. Only the server makes HTML out of names and messages.
const HIDDEN_SECONDS = 30;
const main = document.querySelector("main");
const unreachable = document.getElementById("unreachable");
let timer, asking = false;

function takeOver(now, next) {
  if (now.isEqualNode(next)) return;
  if (now.nodeType !== Node.ELEMENT_NODE) {
    now.data = next.data;
    return;
  }
  for (const { name } of [...now.attributes]) {
    if (name !== "open" && !next.hasAttribute(name)) now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
  const known = new Map([...now.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = now.firstChild; // everything before it is as wanted
  for (const wanted of [...next.childNodes]) {
    const match = wanted.id ? known.get(wanted.id) : at && !at.id && at.nodeName === wanted.nodeName && at;
    if (!match) {
      now.insertBefore(wanted, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else now.insertBefore(match, at);
    takeOver(match, wanted);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

async function refresh() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const options = { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(10_000) };
    const answer = await fetch(location.href, options);
    if (!answer.ok) throw new Error(`the backend answers ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    takeOver(main, page.querySelector("main"));
    document.title = page.title;
    unreachable.hidden = true;
  } catch {
    unreachable.hidden = false;
  }
  asking = false;
  wait();
}

function wait() {
  timer = setTimeout(refresh, 1000 * (document.hidden ? HIDDEN_SECONDS : Number(main.dataset.seconds)));
}

document.addEventListener("visibilitychange", () => document.hidden || refresh());
wait();

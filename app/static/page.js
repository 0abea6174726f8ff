// What the page does beyond its forms: ask by choosing, dropping or pasting, and follow a question until it is
// answered. Without this file every form still works and the waiting page refreshes itself.

const root = document.documentElement;
root.classList.add("js");

const MAX_BYTES = Number(document.body.dataset.maxBytes);
const WORDS = JSON.parse(document.body.dataset.words);
const LONG_POLL_SECONDS = 20;
const RETRY_MS = [500, 1000, 2000, 4000];

// A sentence in the page's language, with its placeholders filled in.
function words(key, values = {}) {
  return WORDS[key].replace(/{(\w+)}/g, (_, name) => values[name]);
}

// A size in megabytes, as the page's language writes it.
function megabytes(bytes) {
  return (bytes / 1e6).toLocaleString(root.lang, { maximumFractionDigits: 1 });
}

// What the next page shall say, in this tab.
const SAID = "said";

function say(sentence) {
  const alert = document.getElementById("alert");
  alert.textContent = sentence;
  alert.hidden = !sentence;
}

// ---- What was refused, beside its field ----

const summary = () => document.getElementById("refusal");

// Says beside a field what is wrong with it, or nothing any more.
function mark(told, sentence, language) {
  const field = document.getElementById(told.id.replace(/-wrong$/, ""));
  told.textContent = sentence;
  told.hidden = !sentence;
  if (language) told.lang = language;
  else told.removeAttribute("lang");
  if (!field) return;
  if (sentence) {
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", told.id);
  } else {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
}

function clearMistakes() {
  if (!summary()) return;
  summary().hidden = true;
  summary().replaceChildren();
  for (const told of document.querySelectorAll(".mistake")) mark(told, "");
}

function leadToMistake() {
  (document.querySelector("[aria-invalid=true]") ?? summary()).focus();
}

// A mistake that is seen before anything is sent.
function mistake(id, sentence) {
  clearMistakes();
  const told = document.getElementById(`${id}-wrong`);
  if (!told) {
    say(sentence); // dropped on a page without the form
    return;
  }
  const link = Object.assign(document.createElement("a"), { href: `#${id}`, textContent: sentence });
  const item = document.createElement("li");
  item.append(link);
  const list = document.createElement("ul");
  list.append(item);
  const heading = Object.assign(document.createElement("p"), { textContent: summary().dataset.heading });
  summary().replaceChildren(heading, list);
  summary().hidden = false;
  mark(told, sentence);
  leadToMistake();
}

// Takes over what the page of a refusal says. What was filled in stays.
function adoptRefusal(refused) {
  const fresh = refused?.getElementById("refusal");
  if (!fresh || !summary()) {
    const said = (fresh ?? refused?.querySelector("main .lede"))?.textContent.trim();
    say(said?.replace(/\s+/g, " ") || words("no_answer"));
    return;
  }
  summary().replaceWith(fresh);
  for (const told of document.querySelectorAll(".mistake")) {
    const said = refused.getElementById(told.id);
    mark(told, said?.textContent ?? "", said?.lang);
  }
  leadToMistake();
}

// ---- Asking ----

const form = document.getElementById("ask");
const picker = document.getElementById("image");
const address = document.getElementById("image_url");
// Where a prompt or an index goes with the picture, it waits for the button; else choosing it is asking.
const waits = form?.classList.contains("more");
let sending = false;

function announceSending(on) {
  sending = on;
  const status = document.getElementById("sending");
  if (!status) return;
  status.hidden = !on;
  tellSending(words("sending", { percent: 0 }));
}

function tellSending(sentence) {
  const status = document.getElementById("sending");
  if (status && status.textContent !== sentence) status.textContent = sentence;
}

function fits(file) {
  if (file.size <= MAX_BYTES) return true;
  mistake("image", words("too_large", { size: megabytes(file.size), limit: megabytes(MAX_BYTES) }));
  return false;
}

function showChosen() {
  const chosen = document.getElementById("chosen");
  const file = picker.files[0];
  const [picture, name] = chosen.children;
  URL.revokeObjectURL(picture.src);
  chosen.hidden = !file;
  picture.hidden = !file;
  if (!file) return;
  address.value = "";
  picture.src = URL.createObjectURL(file);
  name.textContent = file.name;
}

function clearChosen() {
  if (!picker) return;
  picker.value = "";
  showChosen();
}

// Sends the form as a browser would, telling how much of it has gone, which fetch can't. The page that comes back says
// what was refused where, in the page's language.
function send(body) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/ask");
    request.responseType = "document";
    request.setRequestHeader("Accept", "text/html");
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      // In tenths: each is read aloud where a screen reader is on.
      const percent = 10 * Math.floor((10 * event.loaded) / event.total);
      tellSending(percent < 100 ? words("sending", { percent }) : words("sent"));
    });
    request.addEventListener("load", () => {
      resolve({ status: request.status, address: request.responseURL, page: request.response });
    });
    for (const end of ["error", "abort", "timeout"]) request.addEventListener(end, () => reject(new Error(end)));
    request.send(body);
  });
}

// Asks about a file or, without one, about the picture at the address that was given.
async function ask(file) {
  if (sending || (file && !fits(file))) return;
  clearMistakes();
  const body = new FormData(form ?? undefined);
  body.delete(file ? "image_url" : "image");
  if (file) body.set("image", file, file.name || "pasted");
  announceSending(true);
  try {
    const { status, address: reached, page } = await send(body);
    if (status === 401) {
      location.assign("/sign-in"); // signed out meanwhile
      return;
    }
    if (new URL(reached).pathname.startsWith("/a/")) {
      if (file) leaveWord(onlyFirst);
      location.assign(reached);
      return;
    }
    adoptRefusal(page);
    // A file that was refused isn't asked about again. Where choosing is asking, it can be chosen anew at once: a
    // browser tells of no change where the same file is chosen twice.
    if (!waits || picker?.hasAttribute("aria-invalid")) clearChosen();
  } catch {
    say(words("no_answer"));
    if (!waits) clearChosen();
  }
  announceSending(false);
}

// What was chosen was the first of several: the answer's page says so too. A browser that keeps nothing of sites throws.
let onlyFirst = "";

function leaveWord(word) {
  try {
    if (word) sessionStorage.setItem(SAID, word);
  } catch {}
}

function takeWord() {
  try {
    const word = sessionStorage.getItem(SAID);
    sessionStorage.removeItem(SAID);
    return word;
  } catch {
    return null;
  }
}

function take(files) {
  if (sending || !files.length) return;
  onlyFirst = files.length > 1 ? words("only_first") : "";
  say(onlyFirst);
  clearMistakes();
  const [file] = files;
  if (!fits(file)) {
    clearChosen();
    return;
  }
  if (picker && files !== picker.files) {
    const one = new DataTransfer();
    one.items.add(file);
    picker.files = one.files;
  }
  if (picker) showChosen();
  if (!waits) ask(file);
}

picker?.addEventListener("change", () => take(picker.files));
// One of the two is asked about: what was given last.
address?.addEventListener("input", () => address.value && clearChosen());
document.querySelector("#chosen img")?.addEventListener("error", (event) => {
  event.target.hidden = true; // a picture that the browser can't show, such as TIFF, is known by its name
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  say("");
  const file = picker.files[0];
  if (file || address.value) ask(file);
  else mistake("image", words("choose"));
});

document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  if (files.length) {
    event.preventDefault();
    take(files);
    return;
  }
  // In a field, what is pasted is that field's.
  const text = event.clipboardData?.getData("text/plain").trim() ?? "";
  if (!address || sending || event.target.closest?.("input, textarea")) return;
  if (!/^https?:\/\/\S+$/i.test(text)) return;
  event.preventDefault();
  clearChosen();
  address.value = text;
  say("");
  if (waits) address.focus();
  else ask();
});

const veil = document.getElementById("dropveil");
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
const dragging = (on) => {
  veil.hidden = !on;
  root.classList.toggle("dragging", on);
};

document.addEventListener("dragenter", (event) => carriesFiles(event) && dragging(true));
document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
document.addEventListener("dragleave", (event) => event.relatedTarget === null && dragging(false));
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  dragging(false);
  take(event.dataTransfer.files);
});

// Coming back by the browser's back button shows the form as it was before sending.
window.addEventListener("pageshow", () => {
  leaving = false;
  announceSending(false);
  if (picker) showChosen();
});

// Whether a form is on its way: what it does to the question is told by the page that it leads to.
let leaving = false;

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
  // Else the server would ask.
  else if (question) event.target.append(Object.assign(document.createElement("input"), { type: "hidden", name: "sure", value: "yes" }));
  leaving = !event.defaultPrevented;
});

// ---- Following ----

// The server renders; what changed is exchanged part by part, so that what is being read or focused stays.
function adopt(next) {
  const current = document.getElementById("answer");
  const parts = (article) => [...article.querySelectorAll("[data-part]")];
  const names = (article) => parts(article).map((part) => part.dataset.part).join();
  document.title = next.title;
  const said = next.getElementById("announce").textContent;
  const announce = document.getElementById("announce");
  if (announce.textContent !== said) announce.textContent = said;
  const fresh = next.getElementById("answer");
  current.dataset.waiting = fresh.dataset.waiting;
  if (names(current) === names(fresh)) {
    const replacements = parts(fresh);
    parts(current).forEach((part, i) => {
      if (part.outerHTML !== replacements[i].outerHTML) part.replaceWith(replacements[i]);
    });
    return;
  }
  const kept = new Map(parts(current).map((part) => [part.outerHTML, part]));
  for (const part of parts(fresh)) {
    const same = kept.get(part.outerHTML);
    if (same) part.replaceWith(same);
  }
  current.replaceChildren(...fresh.childNodes);
}

async function follow(article) {
  let tag = article.dataset.tag;
  let failures = 0;
  let trying = false;
  while (article.dataset.waiting === "yes") {
    try {
      const response = await fetch(`/a/${article.dataset.id}?wait=${LONG_POLL_SECONDS}`, {
        headers: { Accept: "text/html", "If-None-Match": tag },
        cache: "no-store",
      });
      failures = 0;
      if (response.status === 304) continue;
      if ([401, 404, 410].includes(response.status)) {
        if (!leaving) location.reload();
        return;
      }
      if (!response.ok) throw new Error(String(response.status));
      tag = response.headers.get("ETag");
      adopt(new DOMParser().parseFromString(await response.text(), "text/html"));
      if (trying) say("");
      trying = false;
    } catch {
      trying ||= failures >= 2;
      if (trying) say(words("trying"));
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
      failures += 1;
    }
  }
}

// ---- Sharing ----

for (const button of document.querySelectorAll("[data-copy]")) {
  const from = document.getElementById(button.dataset.copy);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(from.textContent);
      button.textContent = button.dataset.done;
      say(button.dataset.done);
    } catch {
      getSelection().selectAllChildren(from); // without leave to copy, and over plain http: what is marked can be
    }
  });
}

// ---- Comparing ----

const WAYS = { ArrowLeft: "before", ArrowRight: "after", Escape: "back" };

document.addEventListener("keydown", (event) => {
  if (!document.getElementById("compare") || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const way = Object.hasOwn(WAYS, event.key) && document.getElementById(WAYS[event.key]);
  if (!way) return;
  event.preventDefault();
  way.click();
});

const article = document.getElementById("answer");
if (article) {
  const word = takeWord();
  if (word) say(word);
  follow(article);
}

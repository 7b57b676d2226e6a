// The page without a mouse.

const isWriting = (element) =>
  element.matches?.("input:not([type=checkbox]), select, textarea, [contenteditable]");

// `acts` is a function for each key; they are told the event.
export function listen(acts) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target, key } = event;
    if (document.querySelector("dialog[open]")) return;
    if (isWriting(target)) {
      if (target.id !== "q" || !["ArrowDown", "Escape"].includes(key)) return;
    }
    // Buttons keep the keys that press them.
    if (target.matches?.("button, a, summary") && [" ", "Enter"].includes(key)) return;
    const act = acts[key];
    if (!act) return;
    event.preventDefault();
    act(event);
  });
}

// A pasted error message is searched for by its first words, without numbers and without characters that have a meaning in a
// search, such as - and :.
document.addEventListener("paste", (event) => {
  const input = event.target
  if (!(input instanceof HTMLInputElement) || !input.classList.contains("md-search__input")) return
  event.preventDefault()
  const words = event.clipboardData.getData("text").match(/[\p{L}\p{N}_]+/gu) ?? []
  const kept = words.length > 1 ? words.filter((word) => word !== "error" && !/^\d+$/.test(word)).slice(0, 12) : words
  input.setRangeText(kept.join(" "), input.selectionStart, input.selectionEnd, "end")
  input.dispatchEvent(new Event("keyup", { bubbles: true }))
})

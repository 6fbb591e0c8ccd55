// Marks the words of an answer that another answer has not in that place (longest common run of words).

export function markDifferences(before, place) {
  const left = before.split(/(\s+)/), right = place.textContent.split(/(\s+)/);
  if (left.length * right.length > 4_000_000) return;
  const table = Array.from({ length: left.length + 1 }, () => new Uint32Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--)
    for (let j = right.length - 1; j >= 0; j--)
      table[i][j] = left[i] === right[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const parts = [];
  let i = 0, j = 0;
  while (j < right.length) {
    if (i < left.length && left[i] === right[j]) { parts.push([right[j], false]); i++; j++; }
    else if (i < left.length && table[i + 1][j] >= table[i][j + 1]) i++;
    else { parts.push([right[j], true]); j++; }
  }
  place.replaceChildren(...parts.map(([text, isNew]) => {
    if (!isNew || !text.trim()) return document.createTextNode(text);
    const mark = document.createElement("mark");
    mark.textContent = text;
    return mark;
  }));
}

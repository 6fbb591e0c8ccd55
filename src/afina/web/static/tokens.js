// An answer as its tokens: each word shows how sure the model was, and what else it might have said.
import { number } from "./app.js";

/** Tokens may end within a character: bytes are put together until they are text. */
export function tokenText() {
  const decoder = new TextDecoder();
  return (token) => ({
    text: decoder.decode(new Uint8Array(token.bytes ?? []), { stream: true }),
    sure: Math.exp(token.logprob),
    others: (token.top_logprobs ?? []).map((other) => [other.token, Math.exp(other.logprob)]),
  });
}

const level = (sure) => sure > 0.9 ? 4 : sure > 0.6 ? 3 : sure > 0.3 ? 2 : sure > 0.1 ? 1 : 0;
const percent = (share) => `${number(share * 100, share < 0.1 ? 1 : 0)} %`;

/** Puts what is new of `tokens` into `place`. */
export function showTokens(place, tokens) {
  for (const token of tokens.slice(place.childElementCount)) {
    const span = document.createElement("span");
    span.className = `token sure-${level(token.sure)}`;
    span.textContent = token.text;
    span.title = [...token.others.map(([text, share]) => `${percent(share)}  ${JSON.stringify(text)}`)].join("\n") || percent(token.sure);
    place.append(span);
  }
}

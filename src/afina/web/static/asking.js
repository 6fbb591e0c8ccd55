// One question to one model, streamed: what playground and table share.
import { ask } from "./app.js";
import { awayError, offline } from "./away.js";

/** The answer broke off in its middle. */
function broken(error) {
  if (error.name === "AbortError") throw error;
  offline(true);
  throw awayError();
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(broken);
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

/** Asks and gives what came: text, calls, usage, milliseconds to the first piece and in all.
    `onPiece(text, tokens)` hears each piece as it comes. */
export async function stream(body, signal, onPiece = () => {}) {
  const started = performance.now();
  const told = { text: "", calls: "", usage: null, cut: false, first: null, took: 0 };
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const headers = { accept: "application/json, text/event-stream", "content-type": "application/json" };
  const answer = await ask("/playground/answer", { method: "POST", body: JSON.stringify(whole), headers, signal });
  for await (const event of events(answer)) {
    if (event.error) throw Object.assign(new Error([event.error.message, event.error.remedy].filter(Boolean).join(" ")), { lang: event.error.lang, exactly: event.error.exactly });
    told.usage = event.usage ?? told.usage;
    const choice = event.choices?.[0];
    if (!choice) continue;
    told.cut ||= choice.finish_reason === "length";
    for (const call of choice.delta?.tool_calls ?? []) told.calls += (call.function?.name ? `${call.function.name} ` : "") + (call.function?.arguments ?? "");
    const piece = choice.delta?.content ?? "";
    if (piece || told.calls) told.first ??= performance.now() - started;
    told.text += piece;
    onPiece(piece, choice.logprobs?.content);
  }
  told.took = performance.now() - started;
  return told;
}

// The request as code that can be pasted. Strings are written so that no shell and no Python reads
// more into them than text.

export function asCurl(origin, body) {
  const text = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  return `curl ${origin}/v1/chat/completions \\\n  -H "Authorization: Bearer $AFINA_API_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '${text}'`;
}

const NAMES = new Map([["true", "True"], ["false", "False"], ["null", "None"]]);

function python(value, indent) {
  const inner = indent + "    ";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((item) => inner + python(item, inner)).join(",\n")},\n${indent}]` : "[]";
  if (value && typeof value === "object") return `{\n${Object.entries(value).map(([key, item]) => `${inner}${JSON.stringify(key)}: ${python(item, inner)}`).join(",\n")},\n${indent}}`;
  const text = JSON.stringify(value);
  return NAMES.get(text) ?? text;
}

export function asPython(origin, body) {
  const fields = Object.entries(body).map(([key, value]) => `    ${key}=${python(value, "    ")},`).join("\n");
  return `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(\n    base_url="${origin}/v1",\n    api_key=os.environ["AFINA_API_KEY"],\n)\nanswer = client.chat.completions.create(\n${fields}\n)\nprint(answer.choices[0].message.content)`;
}

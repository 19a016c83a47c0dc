// OpenAI's own client for JavaScript: chats, embeddings and responses.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import * as report from "./report.mjs";

const { embeddingModel, getWeather, messages, model, text, tooLong, turns } = report;
const client = new OpenAI({ baseURL: report.url, apiKey: report.key, maxRetries: 0 });
const stranger = client.withOptions({ apiKey: "wrong" });
const limited = client.withOptions({ apiKey: report.limitedKey });
const weather = z.object({ city: z.string(), days: z.int() });
const tools = [{ type: "function", function: { name: "get_weather", parameters: report.city } }];
const functions = [
  { type: "function", name: "get_weather", parameters: report.city, strict: false },
];

const ask = (given, options = {}) => client.chat.completions.create({ model, ...given, ...options });
const respond = (given) => client.responses.create({ model, ...given });
const raised = (call) =>
  report.raised(call, (error) => [error.constructor.name, error.code].filter(Boolean).join(" "));

async function toolLoop() {
  const conversation = [];
  const texts = [];
  for (const content of turns) {
    conversation.push({ role: "user", content });
    const { message } = (await ask({ messages: conversation, tools })).choices[0];
    conversation.push(message);
    for (const call of message.tool_calls ?? []) {
      const result = getWeather(JSON.parse(call.function.arguments));
      conversation.push({ role: "tool", tool_call_id: call.id, content: result });
    }
    const last = (await ask({ messages: conversation, tools })).choices[0].message;
    conversation.push(last);
    texts.push(last.content);
  }
  return texts;
}

async function responsesToolLoop() {
  const input = [];
  const texts = [];
  for (const content of turns) {
    input.push({ role: "user", content });
    const { output } = await respond({ input, tools: functions });
    input.push(...output);
    for (const item of output.filter((item) => item.type === "function_call")) {
      const result = getWeather(JSON.parse(item.arguments));
      input.push({ type: "function_call_output", call_id: item.call_id, output: result });
    }
    const last = await respond({ input, tools: functions });
    input.push(...last.output);
    texts.push(last.output_text);
  }
  return texts;
}

await report.run({
  chat: async () => (await ask({ messages })).choices[0].message.content,
  stream: async () => {
    let said = "";
    for await (const chunk of await ask({ messages, stream: true })) {
      said += chunk.choices[0]?.delta.content ?? "";
    }
    return said;
  },
  tools: toolLoop,
  tools_by_the_runner: async () => {
    const tool = {
      type: "function",
      function: { ...tools[0].function, function: getWeather, parse: JSON.parse },
    };
    const given = { model, messages: [{ role: "user", content: turns[0] }], tools: [tool] };
    return client.chat.completions.runTools(given).finalContent();
  },
  structured: async () => {
    const response_format = zodResponseFormat(weather, "weather");
    const completion = await client.chat.completions.parse({ model, messages, response_format });
    return completion.choices[0].message.parsed;
  },
  max_tokens: async () => {
    const choice = (await ask({ messages, max_tokens: 3 })).choices[0];
    return [choice.message.content, choice.finish_reason];
  },
  embeddings: async () => {
    const given = { model: embeddingModel, input: [text, "four"] };
    const packed = await client.embeddings.create(given);
    const plain = await client.embeddings.create({ ...given, encoding_format: "float" });
    return [packed.data.length, JSON.stringify(packed.data) === JSON.stringify(plain.data)];
  },
  unauthorized: () =>
    raised(() => stranger.chat.completions.create({ model, messages })),
  rate_limited: () => raised(() => limited.chat.completions.create({ model, messages })),
  overflow: () => raised(() => ask({ messages: [{ role: "user", content: tooLong }] })),
  responses_chat: async () => (await respond({ input: text })).output_text,
  responses_stream: async () => {
    let said = "";
    let last;
    for await (const event of await respond({ input: text, stream: true })) {
      said += event.type === "response.output_text.delta" ? event.delta : "";
      last = event.type;
    }
    return [said, last];
  },
  responses_tools: responsesToolLoop,
  responses_structured: async () => {
    const form = { format: zodTextFormat(weather, "weather") };
    return (await client.responses.parse({ model, input: text, text: form })).output_parsed;
  },
  responses_max_tokens: async () => {
    const answer = await respond({ input: text, max_output_tokens: 16 });
    return [answer.output_text, answer.status];
  },
  responses_overflow: () => raised(() => respond({ input: tooLong })),
});

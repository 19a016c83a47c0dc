// Vercel's AI SDK, with its provider for servers that speak OpenAI's format, and with OpenAI's own,
// which asks for responses.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  embedMany,
  generateText,
  jsonSchema,
  Output,
  stepCountIs,
  streamText,
  tool,
} from "ai";
import { z } from "zod";
import * as report from "./report.mjs";

const { text, tooLong, turns } = report;
globalThis.AI_SDK_LOG_WARNINGS = false;

const given = (apiKey) => ({ name: "service", baseURL: report.url, apiKey });
const providers = {
  "": (apiKey) => createOpenAICompatible({ ...given(apiKey), supportsStructuredOutputs: true }),
  chat_: (apiKey) => {
    const { chat, embeddingModel } = createOpenAI(given(apiKey));
    return Object.assign(chat, { embeddingModel });
  },
  responses_: (apiKey) => createOpenAI(given(apiKey)),
};
const weather = z.object({ city: z.string(), days: z.int() });
const tools = {
  get_weather: tool({ inputSchema: jsonSchema(report.city), execute: report.getWeather }),
};

const raised = (call) =>
  report.raised(call, (error) => {
    const { code } = JSON.parse(error.responseBody ?? "{}").error ?? {};
    return [error.name, error.statusCode, code].join(" ");
  });

/** Two turns with a tool; the second begins with all messages of the first, as they came. */
async function twoTurns(answer) {
  const messages = [];
  const texts = [];
  for (const content of turns) {
    messages.push({ role: "user", content });
    const result = await answer(messages);
    messages.push(...(await result.response).messages);
    texts.push(await result.text);
  }
  return texts;
}

function casesOf(prefix, provider) {
  // The service keeps no response: told so, the SDK sends back the text itself, and not its id.
  const providerOptions = prefix === "responses_" ? { openai: { store: false } } : {};
  const ask = (options, key = report.key) =>
    generateText({ model: provider(key)(report.model), maxRetries: 0, providerOptions, ...options });
  const stream = (options) =>
    streamText({ model: provider(report.key)(report.model), maxRetries: 0, providerOptions, ...options });
  const cases = {
    chat: async () => (await ask({ prompt: text })).text,
    stream: async () => {
      let said = "";
      for await (const piece of stream({ prompt: text }).textStream) {
        said += piece;
      }
      return said;
    },
    tools: () => twoTurns((messages) => ask({ messages, tools, stopWhen: stepCountIs(3) })),
    tools_in_a_stream: () => twoTurns((messages) => stream({ messages, tools, stopWhen: stepCountIs(3) })),
    structured: async () =>
      (await ask({ prompt: text, output: Output.object({ schema: weather }) })).output,
    max_tokens: async () => {
      const answer = await ask({ prompt: text, maxOutputTokens: 16 });
      return [answer.text, answer.finishReason];
    },
    embeddings: async () => {
      const model = provider(report.key).embeddingModel(report.embeddingModel);
      const { embeddings } = await embedMany({ model, values: [text, "four"], maxRetries: 0 });
      return embeddings.map((vector) => vector.length);
    },
    unauthorized: () => raised(() => ask({ prompt: text }, "wrong")),
    rate_limited: () => raised(() => ask({ prompt: text }, report.limitedKey)),
    overflow: () => raised(() => ask({ prompt: tooLong })),
  };
  return Object.entries(cases).map(([name, call]) => [prefix + name, call]);
}

await report.run(
  Object.fromEntries(
    Object.entries(providers).flatMap(([prefix, provider]) => casesOf(prefix, provider)),
  ),
);

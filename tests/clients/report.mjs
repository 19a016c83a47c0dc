// What the programs here share: each case runs by itself, and all results are printed as JSON.

export const url = process.env.BASE_URL;
export const key = process.env.API_KEY;
// The key of a user who may ask once a minute.
export const limitedKey = process.env.LIMITED_KEY;
export const model = "openai/gpt-5-mini";
export const embeddingModel = "openai/text-embedding-3-small";

export const text = "one two three";
export const messages = [{ role: "user", content: text }];
// The provider, which is the simulator, has a context of 20,000 words.
export const tooLong = "a ".repeat(20_001);
// The simulator calls a tool that a user names, with the last word, and repeats its result.
export const turns = ["get_weather of Oslo", "get_weather of Rome"];
export const city = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};
export const getWeather = ({ city }) => `21 degrees in ${city}`;

/** Tell of the error that a call raises. It is made twice: one a minute may be let through. */
export async function raised(call, tell) {
  try {
    await call();
    await call();
  } catch (error) {
    return tell(error);
  }
  return "no error";
}

/** Run all cases, and print what each returned, or how it failed. */
export async function run(cases) {
  const results = {};
  for (const [name, call] of Object.entries(cases)) {
    try {
      results[name] = await call();
    } catch (error) {
      console.error(error);
      results[name] = `failed: ${error}`.slice(0, 500);
    }
  }
  process.stdout.write(`\n${JSON.stringify(results)}\n`);
}

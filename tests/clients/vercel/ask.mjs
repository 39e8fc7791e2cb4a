// The Vercel AI SDK as an app uses it: one question a line on standard input, {provider, url, text, stream}, one answer a line.
import { createInterface } from 'node:readline';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';

const models = {
  compatible: (url) => createOpenAICompatible({ name: 'guarded', baseURL: `${url}/v1`, apiKey: 'k' })('m'),
  chat: (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: 'k' }).chat('m'),
  responses: (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: 'k' }).responses('m'),
  anthropic: (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: 'k' })('m'),
};

const told = (error) => ({ message: String(error?.message ?? error?.error?.message ?? JSON.stringify(error)), status: error?.statusCode ?? null });

async function ask({ provider, url, text, stream }) {
  const call = { model: models[provider](url), prompt: text, maxRetries: 0, maxOutputTokens: 100, onError: () => {} };
  const answer = { text: '', finish: null, error: null };
  try {
    if (!stream) {
      const { text, finishReason } = await generateText(call);
      return { ...answer, text, finish: finishReason };
    }
    for await (const part of streamText(call).fullStream) {
      if (part.type === 'text-delta') answer.text += part.text;
      else if (part.type === 'error') answer.error = told(part.error);
      else if (part.type === 'finish') answer.finish = part.finishReason;
    }
  } catch (error) {
    answer.error = told(error);
  }
  return answer;
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await ask(JSON.parse(line))));
}

// Puts and works jobs as told on its input, one JSON array a line: [step, ...arguments]. Answers "ok" when it is done.
// node jobs.js bull|bullmq PORT QUEUE
const { createInterface } = require("node:readline");

const [library, port, name] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port) };
const finished = [];
let waiting = () => {};

async function work(job) {
  if (job.data.hold) await new Promise(() => {});
  await new Promise((resolve) => setTimeout(resolve, job.data.milliseconds || 0));
  if (job.data.fail || (job.data.failAtFirst && job.attemptsMade === 0)) throw new Error("as told");
}

function done(job) {
  finished.push(job.id);
  waiting();
}

async function reach(count) {
  while (finished.length < count) await new Promise((resolve) => (waiting = resolve));
}

async function bullmq() {
  const { Queue, Worker, FlowProducer } = require("bullmq");
  const queue = new Queue(name, { connection });
  await queue.waitUntilReady();
  return {
    add: (count, data, options) =>
      queue.addBulk(Array.from({ length: count }, () => ({ name: "job", data, opts: options }))),
    flow: () =>
      new FlowProducer({ connection }).add({
        name: "parent", queueName: name, data: {}, children: [{ name: "child", queueName: `${name}-children`, data: {} }],
      }),
    work: async (concurrency) => {
      const worker = new Worker(name, work, { connection, concurrency, metrics: { maxDataPoints: 60 } });
      worker.on("completed", done).on("failed", done).on("error", () => {});
      await worker.waitUntilReady();
    },
    pause: () => queue.pause(),
  };
}

async function bull() {
  const Queue = require("bull");
  const queue = new Queue(name, { redis: connection, metrics: { maxDataPoints: 60 } });
  await queue.isReady();
  return {
    add: (count, data, options) => queue.addBulk(Array.from({ length: count }, () => ({ data, opts: options }))),
    work: async (concurrency) => {
      queue.on("completed", done).on("failed", done).on("error", () => {});
      queue.process(concurrency, work).catch(() => {});
      while (!(await queue.getWorkers()).length) await new Promise((resolve) => setTimeout(resolve, 10));
    },
    pause: () => queue.pause(),
  };
}

(async () => {
  const steps = { reach, ...(await { bull, bullmq }[library]()) };
  console.log("ok");
  for await (const line of createInterface({ input: process.stdin })) {
    const [step, ...given] = JSON.parse(line);
    await steps[step](...given);
    console.log("ok");
  }
  process.exit(0); // jobs that are held keep it busy otherwise
})();

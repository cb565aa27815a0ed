// Answers of a routed graph as JSON: node run.mjs GRAPH INPUTS.json; onnxruntime-node is found through NODE_PATH.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.NODE_PATH}/`);
const { InferenceSession, Tensor } = require("onnxruntime-node");

const [graph, inputs] = process.argv.slice(2);
const feed = {};
for (const [name, { type, dims, data }] of Object.entries(JSON.parse(readFileSync(inputs, "utf8")))) {
  // JSON has no NaN: a feature that is not known is null.
  const values = type === "int64" ? BigInt64Array.from(data, BigInt) : Float32Array.from(data, (x) => x ?? NaN);
  feed[name] = new Tensor(type, values, dims);
}
const session = await InferenceSession.create(graph, { intraOpNumThreads: 1 });
const found = await session.run(feed);
const answers = Object.entries(found).map(([name, tensor]) => [name, Array.from(tensor.data)]);
console.log(JSON.stringify(Object.fromEntries(answers)));

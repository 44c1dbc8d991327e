// Makes protobufjs.json: for every message type of the schema one message with every field set to a random value, as
// protobuf.js encodes and prints it (`JSON.stringify` of a decoded instance). In an empty folder:
//
//     npm install protobufjs@7.6.6 long@5
//     node .../proto/tests/vectors/protobufjs.mjs .../proto/schema > .../proto/tests/vectors/protobufjs.json

import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "x.js"));
const protobuf = require("protobufjs");
const Long = require("long");
protobuf.util.Long = Long;
protobuf.configure();

const schema = process.argv[2];
const files = readdirSync(schema, { recursive: true }).filter((name) => name.endsWith(".proto")).sort();
const root = new protobuf.Root();
root.resolvePath = (_, target) => (target.startsWith("/") ? target : join(schema, target));
root.loadSync(files, { keepCase: true });
root.resolveAll();

// mulberry32
let state = 20260901;
const random = () => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const below = (n) => Math.floor(random() * n);
const pick = (items) => items[below(items.length)];

const strings = ["", "a", "Lagos", "49123@s.whatsapp.net", "\u00e9\u4f60\ud83d\ude00", "q\"\\\n\t\u0001/", "\u2028\u007f"];
const doubles = [0, -0, 1, -2, 6.5244, 1e15, 1e20, 1e21, -1.5e300, 1e-6, 1e-7, 5e-324, NaN, Infinity, -Infinity];

function scalar(type) {
  switch (type) {
    case "double": return pick(doubles);
    case "float": return Math.fround(pick([0.1, 1, -0, 3.4e38, 1e-10, NaN, -Infinity]));
    case "int32": case "sint32": case "sfixed32": return pick([0, 1, -1, 2147483647, -2147483648, below(1e6)]);
    case "uint32": case "fixed32": return pick([0, 1, 4278190335, 4294967295, below(1e6)]);
    case "int64": case "sint64": case "sfixed64":
      return pick([Long.ZERO, Long.NEG_ONE, Long.MAX_VALUE, Long.MIN_VALUE, Long.fromNumber(1716894200123)]);
    case "uint64": case "fixed64": return pick([Long.UZERO, Long.MAX_UNSIGNED_VALUE, Long.fromNumber(12345, true)]);
    case "bool": return random() < 0.5;
    case "string": return pick(strings);
    case "bytes": return Buffer.from(Array.from({ length: below(6) }, () => below(256)));
  }
  throw new Error(type);
}

function value(field, depth) {
  if (!field.resolvedType) return scalar(field.type);
  if (field.resolvedType instanceof protobuf.Enum) {
    return random() < 0.1 ? 9999 : pick(Object.values(field.resolvedType.values));
  }
  return message(field.resolvedType, depth + 1);
}

function message(type, depth) {
  const object = {};
  // All fields on the first level, a few further down.
  for (const field of type.fieldsArray) {
    field.resolve();
    if (depth > 0 && random() > (depth > 3 ? 0 : 1.5 / type.fieldsArray.length)) continue;
    if (field.partOf && field.partOf.fieldsArray.some((other) => object[other.name] !== undefined)) continue;
    if (field.partOf && random() < 0.3) continue;
    if (field.map) object[field.name] = { 7: value(field, depth) };
    else if (field.repeated) object[field.name] = Array.from({ length: below(3) }, () => value(field, depth));
    else object[field.name] = value(field, depth);
  }
  return type.create(object);
}

const types = [];
const walk = (space) => space.nestedArray.forEach((item) => {
  if (item instanceof protobuf.Type) types.push(item);
  if (item instanceof protobuf.Namespace) walk(item);
});
walk(root);

const cases = types.map((type) => {
  const wire = type.encode(message(type, 0)).finish();
  const json = JSON.stringify(type.decode(wire));
  return JSON.stringify({ type: type.fullName.slice(1), wire: Buffer.from(wire).toString("hex"), json });
});
console.log(`{"origin": "protobufjs.mjs with protobufjs 7.6.6 on Node.js ${process.version}", "cases": [`);
console.log(cases.join(",\n"));
console.log("]}");

export * from "./client.js";
export * from "./errors.js";
export { FinishReason, TaskResponse } from "./generated/florence2/v1/inference.js";
export { StreamEvent } from "./generated/florence2/v1/stream.js";

/** A Triton server that does what only a fake can be made to do. */
import { Server, ServerCredentials, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { TaskResponse } from "../src/generated/florence2/v1/inference.js";
import { GRPCInferenceServiceService, ModelInferResponse } from "../src/generated/grpc_service.js";
import { withLength } from "../src/tensors.js";

export const UNAVAILABLE = { code: status.UNAVAILABLE, details: "the queue is full" };

/** Triton's message for a response. */
export function inferResponse(response: TaskResponse): ModelInferResponse {
  const bytes = TaskResponse.encode(response).finish();
  return ModelInferResponse.fromPartial({ outputs: [{ name: "RESPONSE" }], rawOutputContents: [withLength(bytes)] });
}

/** Serve some methods of the service until the function that is returned beside the url is called. */
export async function serve(methods: UntypedServiceImplementation): Promise<[url: string, stop: () => void]> {
  const others = Object.fromEntries(
    Object.keys(GRPCInferenceServiceService).map((name) => [
      name,
      () => {
        throw new Error(`${name} was called`);
      },
    ]),
  );
  const server = new Server({ "grpc.max_receive_message_length": -1 });
  server.addService(GRPCInferenceServiceService, { ...others, ...methods });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return [`127.0.0.1:${port}`, () => server.forceShutdown()];
}

package florence2

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"florence2/inference"
	v1 "florence2/v1"

	"google.golang.org/protobuf/proto"
)

const lengthBytes = 4 // of the little-endian length before each element of a BYTES tensor

// inferRequest puts an image and a request into tensors: of shape [1, 1] for the model, and [1] for its streams.
func inferRequest(
	ctx context.Context, model string, shape []int64, image []byte, request *v1.TaskRequest, options []Option,
) (*inference.ModelInferRequest, error) {
	scheduled := proto.Clone(request).(*v1.TaskRequest)
	for _, option := range options {
		option(scheduled)
	}
	if deadline, ok := ctx.Deadline(); ok {
		// gRPC's own deadline ends the call; this one also ends a request that waits in the server.
		scheduled.TimeoutSeconds = time.Until(deadline).Seconds()
		if scheduled.TimeoutSeconds <= 0 {
			return nil, &DeadlineExceededError{Message: "the deadline passed before the request was sent"}
		}
	}
	data, err := proto.Marshal(scheduled)
	if err != nil { // a string that is not UTF-8
		return nil, &InvalidArgumentError{Message: err.Error()}
	}
	return &inference.ModelInferRequest{
		ModelName: model,
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "IMAGE", Datatype: "BYTES", Shape: shape},
			{Name: "REQUEST", Datatype: "BYTES", Shape: shape},
		},
		RawInputContents: [][]byte{element(image), element(data)},
	}, nil
}

// element encodes the only element of a BYTES tensor.
func element(data []byte) []byte {
	encoded := make([]byte, lengthBytes, lengthBytes+len(data))
	binary.LittleEndian.PutUint32(encoded, uint32(len(data)))
	return append(encoded, data...)
}

// readResponse decodes the tensor RESPONSE, which has one element.
//
// The length is checked: protobuf may take it for a part of the message, and what follows for fields it does not know.
func readResponse(answer *inference.ModelInferResponse, message proto.Message) error {
	outputs, contents := answer.GetOutputs(), answer.GetRawOutputContents()
	if len(outputs) != 1 || outputs[0].GetName() != "RESPONSE" || len(contents) != 1 {
		return unexpected("the response is not one tensor RESPONSE")
	}
	content := contents[0]
	if len(content) < lengthBytes || uint64(binary.LittleEndian.Uint32(content)) != uint64(len(content)-lengthBytes) {
		return unexpected("the tensor RESPONSE is not one element with its length")
	}
	if err := proto.Unmarshal(content[lengthBytes:], message); err != nil {
		return unexpected(fmt.Sprintf("the tensor RESPONSE is not a %s", message.ProtoReflect().Descriptor().Name()))
	}
	return nil
}

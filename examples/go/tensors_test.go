package florence2

import (
	"context"
	"errors"
	"testing"

	"florence2/inference"
	v1 "florence2/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func answerOf(content []byte) *inference.ModelInferResponse {
	output := &inference.ModelInferResponse_InferOutputTensor{Name: "RESPONSE", Datatype: "BYTES", Shape: []int64{1, 1}}
	return &inference.ModelInferResponse{
		Outputs:           []*inference.ModelInferResponse_InferOutputTensor{output},
		RawOutputContents: [][]byte{content},
	}
}

func TestAResponseIsReadBehindItsLength(t *testing.T) {
	data, err := proto.Marshal(&v1.TaskResponse{Text: "</s>A dog.</s>"})
	if err != nil {
		t.Fatal(err)
	}
	response := &v1.TaskResponse{}
	if err := readResponse(answerOf(element(data)), response); err != nil || response.GetText() != "</s>A dog.</s>" {
		t.Errorf("got %v, %v", response, err)
	}
	for _, wrong := range [][]byte{nil, data, element(data)[:8], append(element(data), 0)} {
		var fault *ServerError
		if err := readResponse(answerOf(wrong), response); !errors.As(err, &fault) {
			t.Errorf("%q: got %v, expected a ServerError", wrong, err)
		}
	}
}

func TestARequestWithoutTimeLeftIsNotSent(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	_, err := inferRequest(ctx, "florence2", []int64{1, 1}, nil, &v1.TaskRequest{}, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, expected a deadline that was exceeded", err)
	}
}

func TestAnOptionLeavesTheRequestAsItIs(t *testing.T) {
	request := &v1.TaskRequest{}
	message, err := inferRequest(context.Background(), "florence2", []int64{1, 1}, nil, request,
		[]Option{WithAdapter("counter"), WithPriority(1)})
	if err != nil || request.GetAdapter() != "" {
		t.Fatalf("got %v, %v", request, err)
	}
	sent := &v1.TaskRequest{}
	if err := proto.Unmarshal(message.RawInputContents[1][lengthBytes:], sent); err != nil {
		t.Fatal(err)
	}
	if sent.GetAdapter() != "counter" || sent.GetPriority() != 1 {
		t.Errorf("got %v", sent)
	}
}

func TestTheErrorOfAStatus(t *testing.T) {
	var invalid *InvalidArgumentError
	err := errorOfName("INVALID_ARGUMENT", "generation.num_beams: got 9, expected 1 to 8")
	if !errors.As(err, &invalid) || invalid.Field != "generation.num_beams" || invalid.Requirement != "1 to 8" {
		t.Errorf("got %#v", err)
	}
	var unavailable *UnavailableError
	if err := errorOfStatus(codes.Unavailable, "the queue is full"); !errors.As(err, &unavailable) {
		t.Errorf("got %#v", err)
	}
	late := errorOfStatus(codes.Unavailable, "deadline exceeded: the request waited for 1.000 s")
	if !errors.Is(late, context.DeadlineExceeded) {
		t.Errorf("got %#v", late)
	}
	if err := errorOfStatus(codes.Canceled, "context canceled"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %#v", err)
	}
	var fault *ServerError
	if err := errorOfName("NO_SUCH_STATUS", "?"); !errors.As(err, &fault) || fault.Code != codes.Unknown {
		t.Errorf("got %#v", err)
	}
}

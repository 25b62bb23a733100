package florence2

import (
	"context"
	"errors"
	"io"

	"florence2/inference"
	v1 "florence2/v1"

	"google.golang.org/grpc/metadata"
)

// Stream is the events of a request that is being answered, in the manner of a bufio.Scanner:
//
//	stream, err := client.Stream(ctx, image, request)
//	...
//	defer stream.Close()
//	for stream.Next() {
//		switch event := stream.Event().GetEvent().(type) {
//		case *v1.StreamEvent_Detection:
//			fmt.Println(event.Detection.GetLabel())
//		case *v1.StreamEvent_Response: // the last one
//			fmt.Println(event.Response.GetText())
//		}
//	}
//	return stream.Err()
//
// One goroutine reads it.
type Stream struct {
	call   inference.GRPCInferenceService_ModelStreamInferClient
	cancel context.CancelFunc
	event  *v1.StreamEvent
	err    error
	done   bool
}

// Stream sends any request, and returns its events.
func (c *Client) Stream(
	ctx context.Context, image []byte, request *v1.TaskRequest, options ...Option,
) (*Stream, error) {
	// A stream has no batch dimension.
	message, err := inferRequest(ctx, c.model+"_stream", []int64{1}, image, request, options)
	if err != nil {
		return nil, err
	}
	// With this header, Triton ends a failed stream with a status instead of sending only a text.
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "triton_grpc_error", "true"))
	call, err := c.service.ModelStreamInfer(ctx)
	if err != nil {
		cancel()
		return nil, errorOf(err)
	}
	// If either fails, Recv has the reason.
	_ = call.Send(message)
	_ = call.CloseSend()
	return &Stream{call: call, cancel: cancel}, nil
}

// Next waits for the next event. It returns false after the last one, and when there is an error.
func (s *Stream) Next() bool {
	if s.done {
		return false
	}
	s.event, s.err = s.receive()
	switch {
	case s.err != nil:
		s.Close()
	case s.event.GetResponse() != nil:
		s.drain()
		s.Close()
	}
	return s.err == nil
}

// Event returns the event that Next waited for.
func (s *Stream) Event() *v1.StreamEvent { return s.event }

// Err returns the error that ended the stream; nil if it is complete, or if it was closed before its end.
func (s *Stream) Err() error { return s.err }

// Close ends the stream. If it is not complete, its request is cancelled, on the server too. It may be called again.
func (s *Stream) Close() {
	s.done = true
	s.cancel()
}

func (s *Stream) receive() (*v1.StreamEvent, error) {
	answer, err := s.call.Recv()
	if errors.Is(err, io.EOF) {
		return nil, unexpected("the stream ended without a response")
	}
	if err != nil {
		return nil, errorOf(err)
	}
	if answer.GetErrorMessage() != "" {
		return nil, unexpected(answer.GetErrorMessage())
	}
	event := &v1.StreamEvent{}
	if err := readResponse(answer.GetInferResponse(), event); err != nil {
		return nil, err
	}
	if failure := event.GetError(); failure != nil {
		return nil, errorOfName(failure.GetStatus(), failure.GetMessage())
	}
	return event, nil
}

// drain lets the call end by itself, so that Triton does not handle a cancellation while it cleans up. However the call
// ends, the answer is complete.
func (s *Stream) drain() {
	for {
		if _, err := s.call.Recv(); err != nil {
			return
		}
	}
}

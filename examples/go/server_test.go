package florence2

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	v1 "florence2/v1"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// connect returns a client of the server FLORENCE2_SERVER, and the content of the image file FLORENCE2_IMAGE.
func connect(t *testing.T) (*Client, []byte) {
	t.Helper()
	server := os.Getenv("FLORENCE2_SERVER")
	if server == "" {
		t.Skip("FLORENCE2_SERVER, host:port of a server, is not set")
	}
	image, err := os.ReadFile(os.Getenv("FLORENCE2_IMAGE"))
	if err != nil {
		t.Fatal(err)
	}
	return clientOf(t, server), image
}

func clientOf(t *testing.T, server string) *Client {
	t.Helper()
	connection, err := grpc.Dial(server, grpc.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return NewClient(connection)
}

// nineHundredTokens makes an answer long.
func nineHundredTokens() Option {
	return WithGeneration(&v1.GenerationOptions{MinNewTokens: proto.Int32(900), NumBeams: proto.Int32(1)})
}

func captionRequest() *v1.TaskRequest {
	return &v1.TaskRequest{Task: &v1.TaskRequest_Caption{Caption: &v1.Caption{}}}
}

func TestLeavingAStreamCancelsItsRequest(t *testing.T) {
	client, image := connect(t)
	// The only request for this task, so that the server's metrics tell its outcome.
	request := &v1.TaskRequest{Task: &v1.TaskRequest_Ocr{Ocr: &v1.Ocr{}}}
	stream, err := client.Stream(context.Background(), image, request, nineHundredTokens())
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Next() {
		t.Fatal(stream.Err())
	}
	stream.Close()
	if stream.Next() || stream.Err() != nil {
		t.Errorf("got %v, %v after Close", stream.Event(), stream.Err())
	}
}

func TestAStreamEndsAtItsDeadline(t *testing.T) {
	client, image := connect(t)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	stream, err := client.Stream(ctx, image, captionRequest(), nineHundredTokens())
	if err != nil {
		t.Fatal(err)
	}
	for stream.Next() {
	}
	var late *DeadlineExceededError
	if !errors.As(stream.Err(), &late) {
		t.Errorf("got %v, expected a DeadlineExceededError", stream.Err())
	}
}

func TestAnInvalidStreamHasATypedError(t *testing.T) {
	client, image := connect(t)
	beams := WithGeneration(&v1.GenerationOptions{NumBeams: proto.Int32(9)})
	stream, err := client.Stream(context.Background(), image, captionRequest(), beams)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var invalid *InvalidArgumentError
	if stream.Next() || !errors.As(stream.Err(), &invalid) || invalid.Field != "generation.num_beams" {
		t.Errorf("got %v, %v", stream.Event(), stream.Err())
	}
}

func TestATruncatedAnswerIsAnError(t *testing.T) {
	client, image := connect(t)
	short := WithGeneration(&v1.GenerationOptions{MaxNewTokens: proto.Int32(4)})
	_, err := client.Detect(context.Background(), image, short)
	var truncated *TruncatedAnswerError
	if !errors.As(err, &truncated) || truncated.Response.GetUsage().GetGeneratedTokens() != 4 {
		t.Errorf("got %v, expected a TruncatedAnswerError", err)
	}
}

func TestACancelledContextIsAnError(t *testing.T) {
	client, image := connect(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := client.Detect(ctx, image)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, expected a context that was cancelled", err)
	}
}

func TestAServerThatCannotBeReachedIsUnavailable(t *testing.T) {
	client := clientOf(t, "127.0.0.1:1")
	_, err := client.Detect(context.Background(), nil)
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) {
		t.Errorf("got %v, expected an UnavailableError", err)
	}
}

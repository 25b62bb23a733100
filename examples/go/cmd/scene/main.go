// The command scene shows the client: a few requests about a drawing, a stream, an error and a deadline.
//
//	scene [-server localhost:8001] examples/scene.png
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"florence2"
	v1 "florence2/v1"

	"google.golang.org/grpc"
)

const caption = "A red circle, a green triangle and a blue square."

func main() {
	log.SetFlags(0)
	server := flag.String("server", "localhost:8001", "host:port of Triton's gRPC port")
	timeout := flag.Duration("timeout", time.Minute, "time for all requests together")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: scene [-server host:port] [-timeout duration] IMAGE")
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := run(ctx, *server, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server, path string) error {
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Without encryption. For TLS: grpc.WithTransportCredentials(credentials.NewTLS(...)).
	connection, err := grpc.DialContext(ctx, server, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	client := florence2.NewClient(connection)
	for _, show := range []func(context.Context, *florence2.Client, []byte) error{
		showObjects, showPhrases, showStream, showError, showDeadline,
	} {
		if err := show(ctx, client, image); err != nil {
			return err
		}
	}
	return nil
}

func showObjects(ctx context.Context, client *florence2.Client, image []byte) error {
	objects, err := client.Detect(ctx, image)
	if err != nil {
		return err
	}
	for _, object := range objects {
		text, err := client.DescribeRegion(ctx, image, object.GetBoundingBox())
		if err != nil {
			return err
		}
		fmt.Printf("object %s: %s\n", shown(object), text.GetText())
	}
	return nil
}

func showPhrases(ctx context.Context, client *florence2.Client, image []byte) error {
	greedy := &v1.GenerationOptions{NumBeams: new(int32)}
	*greedy.NumBeams = 1
	phrases, err := client.Ground(ctx, image, caption, florence2.WithGeneration(greedy))
	if err != nil {
		return err
	}
	for _, phrase := range phrases {
		fmt.Printf("phrase %s\n", shown(phrase))
	}
	return nil
}

func showStream(ctx context.Context, client *florence2.Client, image []byte) error {
	task := &v1.TaskRequest_OcrWithRegion{OcrWithRegion: &v1.OcrWithRegion{}}
	stream, err := client.Stream(ctx, image, &v1.TaskRequest{Task: task})
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Next() {
		switch event := stream.Event().GetEvent().(type) {
		case *v1.StreamEvent_TextRegion:
			corner := event.TextRegion.GetQuad().GetCorners()[0]
			fmt.Printf("stream %s %.2f %.2f\n", event.TextRegion.GetText(), corner.GetX(), corner.GetY())
		case *v1.StreamEvent_Response:
			fmt.Printf("stream complete: %d tokens\n", event.Response.GetUsage().GetGeneratedTokens())
		}
	}
	return stream.Err()
}

// showError describes a region outside the image.
func showError(ctx context.Context, client *florence2.Client, image []byte) error {
	_, err := client.DescribeRegion(ctx, image, &v1.BoundingBox{XMax: 9999, YMax: 10})
	var invalid *florence2.InvalidArgumentError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("expected an InvalidArgumentError, got %w", err)
	}
	fmt.Printf("error %s is %s: expected %s\n", invalid.Field, invalid.Value, invalid.Requirement)
	return nil
}

// showDeadline allows a request a millisecond.
func showDeadline(ctx context.Context, client *florence2.Client, image []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err := client.Detect(ctx, image)
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("expected a deadline that was exceeded, got %w", err)
	}
	fmt.Println("deadline exceeded")
	return nil
}

func shown(found *v1.Detection) string {
	box := found.GetBoundingBox()
	return fmt.Sprintf("%s [%.2f %.2f %.2f %.2f] confidence %.2f",
		found.GetLabel(), box.GetXMin(), box.GetYMin(), box.GetXMax(), box.GetYMax(), found.GetConfidence())
}

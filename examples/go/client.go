// Package florence2 is a small client of Florence-2 on NVIDIA Triton.
//
// Coordinates, in requests and in results, are pixels of the image as displayed: x to the right, y down.
package florence2

import (
	"context"

	"florence2/inference"
	v1 "florence2/v1"

	"google.golang.org/grpc"
)

// Client sends requests about images to a server. Goroutines may share it.
//
// The deadline of a context is the request's: the server stops working on the request when it has passed, or when the
// context is cancelled. An image is the content of an image file, such as a JPEG or a PNG.
type Client struct {
	service inference.GRPCInferenceServiceClient
	model   string
}

// NewClient returns a client of a server's model "florence2". The connection, which remains the caller's, leads to
// Triton's gRPC port.
func NewClient(connection grpc.ClientConnInterface) *Client {
	return &Client{service: inference.NewGRPCInferenceServiceClient(connection), model: "florence2"}
}

// An Option changes a request before it is sent.
type Option func(*v1.TaskRequest)

// WithAdapter answers with an adapter (LoRA) of the server, by its name.
func WithAdapter(name string) Option {
	return func(request *v1.TaskRequest) { request.Adapter = name }
}

// WithGeneration sets the options of the search for an answer.
func WithGeneration(options *v1.GenerationOptions) Option {
	return func(request *v1.TaskRequest) { request.Generation = options }
}

// WithPriority is 1 (served first) to 3 (served last) among the requests that wait.
func WithPriority(priority int32) Option {
	return func(request *v1.TaskRequest) { request.Priority = priority }
}

// Detect finds objects, with their category names.
func (c *Client) Detect(ctx context.Context, image []byte, options ...Option) ([]*v1.Detection, error) {
	task := &v1.TaskRequest_ObjectDetection{ObjectDetection: &v1.ObjectDetection{}}
	return c.detections(ctx, image, &v1.TaskRequest{Task: task}, options)
}

// Ground finds the phrases of a caption in the image.
func (c *Client) Ground(
	ctx context.Context, image []byte, caption string, options ...Option,
) ([]*v1.Detection, error) {
	task := &v1.TaskRequest_PhraseGrounding{PhraseGrounding: &v1.PhraseGrounding{Caption: caption}}
	return c.detections(ctx, image, &v1.TaskRequest{Task: task}, options)
}

// DescribeRegion describes a region of the image, such as the bounding box of a detection.
func (c *Client) DescribeRegion(
	ctx context.Context, image []byte, region *v1.BoundingBox, options ...Option,
) (*v1.Text, error) {
	task := &v1.TaskRequest_RegionToDescription{RegionToDescription: &v1.RegionToDescription{Region: region}}
	response, err := c.complete(ctx, image, &v1.TaskRequest{Task: task}, options)
	if err != nil {
		return nil, err
	}
	if response.GetTextResult() == nil {
		return nil, unexpected("the response has no text")
	}
	return response.GetTextResult(), nil
}

// Run sends any request, and returns its response, even one that was truncated at its length limit: check its
// FinishReason. The request itself is left as it is.
func (c *Client) Run(
	ctx context.Context, image []byte, request *v1.TaskRequest, options ...Option,
) (*v1.TaskResponse, error) {
	message, err := inferRequest(ctx, c.model, []int64{1, 1}, image, request, options)
	if err != nil {
		return nil, err
	}
	answer, err := c.service.ModelInfer(ctx, message)
	if err != nil {
		return nil, errorOf(err)
	}
	response := &v1.TaskResponse{}
	if err := readResponse(answer, response); err != nil {
		return nil, err
	}
	return response, nil
}

func (c *Client) detections(
	ctx context.Context, image []byte, request *v1.TaskRequest, options []Option,
) ([]*v1.Detection, error) {
	response, err := c.complete(ctx, image, request, options)
	if err != nil {
		return nil, err
	}
	if response.GetDetections() == nil {
		return nil, unexpected("the response has no detections")
	}
	return response.GetDetections().GetDetections(), nil
}

// complete is Run for answers of which a part is not enough.
func (c *Client) complete(
	ctx context.Context, image []byte, request *v1.TaskRequest, options []Option,
) (*v1.TaskResponse, error) {
	response, err := c.Run(ctx, image, request, options...)
	if err != nil {
		return nil, err
	}
	if response.GetFinishReason() == v1.FinishReason_FINISH_REASON_LENGTH {
		return nil, &TruncatedAnswerError{Response: response}
	}
	return response, nil
}

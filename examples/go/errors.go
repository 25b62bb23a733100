package florence2

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	v1 "florence2/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// InvalidArgumentError says that a request is invalid, and will be invalid again.
type InvalidArgumentError struct {
	// Message has the three others in one sentence.
	Message string
	// Field is the path of the invalid field, such as "phrase_grounding.caption"; empty if the message names none.
	Field string
	// Value is the invalid value, as shown in the message.
	Value string
	// Requirement says which values are accepted.
	Requirement string
}

func (e *InvalidArgumentError) Error() string { return e.Message }

// UnavailableError says that the server is full, starting, stopping or unreachable. There was no answer; retrying is
// safe.
type UnavailableError struct{ Message string }

func (e *UnavailableError) Error() string { return e.Message }

// DeadlineExceededError says that the context's deadline passed before the answer was complete. It is a
// context.DeadlineExceeded for errors.Is.
type DeadlineExceededError struct{ Message string }

func (e *DeadlineExceededError) Error() string { return e.Message }

// Unwrap returns context.DeadlineExceeded.
func (e *DeadlineExceededError) Unwrap() error { return context.DeadlineExceeded }

// CancelledError says that the context was cancelled. It is a context.Canceled for errors.Is.
type CancelledError struct{ Message string }

func (e *CancelledError) Error() string { return e.Message }

// Unwrap returns context.Canceled.
func (e *CancelledError) Unwrap() error { return context.Canceled }

// TruncatedAnswerError says that an answer was truncated at its length limit.
type TruncatedAnswerError struct {
	// Response is what there is of the answer.
	Response *v1.TaskResponse
}

func (e *TruncatedAnswerError) Error() string {
	return fmt.Sprintf("the answer was truncated after %d tokens", e.Response.GetUsage().GetGeneratedTokens())
}

// ServerError is any other error: a fault of the server, a missing model, a rejected token, or a response that no
// florence2 server sends.
type ServerError struct {
	// Code is gRPC's; codes.OK if the response itself is wrong.
	Code    codes.Code
	Message string
}

func (e *ServerError) Error() string {
	if e.Code == codes.OK {
		return e.Message
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func unexpected(message string) error { return &ServerError{Message: message} }

var rejection = regexp.MustCompile(`(?s)^([^:]+): got (.*), expected (.+)$`)

// errorOf returns the error for an error of gRPC.
func errorOf(err error) error {
	found := status.Convert(err)
	return errorOfStatus(found.Code(), found.Message())
}

// errorOfName returns the error for the name of a gRPC status, such as "INVALID_ARGUMENT".
func errorOfName(name, message string) error {
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(`"` + name + `"`)); err != nil {
		code = codes.Unknown
	}
	return errorOfStatus(code, message)
}

func errorOfStatus(code codes.Code, message string) error {
	switch {
	case code == codes.InvalidArgument:
		if found := rejection.FindStringSubmatch(message); found != nil {
			return &InvalidArgumentError{message, found[1], found[2], found[3]}
		}
		return &InvalidArgumentError{Message: message}
	case code == codes.DeadlineExceeded,
		// Triton's models have no such status, so the server sends this one if it notices the deadline first.
		code == codes.Unavailable && strings.Contains(message, "deadline exceeded"):
		return &DeadlineExceededError{message}
	case code == codes.Unavailable:
		return &UnavailableError{message}
	case code == codes.Canceled:
		return &CancelledError{message}
	}
	return &ServerError{code, message}
}

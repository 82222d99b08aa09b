// Command kstatus judges Kubernetes objects as kubectl's and GitOps tools' own library does: it reads objects as JSON, one
// a line, and prints for each, in the same order, a line of JSON with its resourceVersion, status and message.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// verdict is what a line of output says.
type verdict struct {
	ResourceVersion string `json:"resourceVersion"`
	Status          string `json:"status"`
	Message         string `json:"message"`
}

func main() {
	if err := judge(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func judge(in io.Reader, out io.Writer) error {
	reader := bufio.NewReader(in)
	writer := json.NewEncoder(out)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(line); err != nil {
			return fmt.Errorf("line %d is no object: %w", number, err)
		}
		result, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err := writer.Encode(verdict{object.GetResourceVersion(), result.Status.String(), result.Message}); err != nil {
			return err
		}
	}
}

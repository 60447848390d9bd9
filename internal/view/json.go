package view

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/heimweg/heimweg/internal/fault"
)

// JSON writes a result as indented JSON.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// FaultJSON writes a failure as one JSON object {"error": …}. A list of failures
// stands under "errors".
func FaultJSON(w io.Writer, err error) error {
	var list fault.List
	if errors.As(err, &list) && len(list) > 1 {
		return JSON(w, map[string]any{"errors": list})
	}
	f := fault.Find(err)
	if f == nil {
		f = fault.New("failed", "%s", err)
	}
	return JSON(w, map[string]any{"error": f})
}

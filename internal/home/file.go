package home

import (
	"bytes"

	"github.com/heimweg/heimweg/internal/fault"
)

// A File is a home.toml that was read and understood. It does not change; its
// editing methods return a new one.
type File struct {
	// Home is what the file says. Treat it as read-only.
	Home Home
	// Notes are findings that are no errors, such as a home LAN that travelling
	// devices meet elsewhere too.
	Notes fault.List

	name string
	text []byte
	doc  *document
}

// Name is the file's name as it appears in messages.
func (f *File) Name() string { return f.name }

// Text is the file's content; the caller may change the copy.
func (f *File) Text() []byte { return bytes.Clone(f.text) }

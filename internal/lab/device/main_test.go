package device

import (
	"context"
	"os"
	"testing"

	"github.com/heimweg/heimweg/internal/lab/owrt"
	"github.com/heimweg/heimweg/internal/router"
)

// The host key that all boxes share is made once, outside of any bubble.
func TestMain(m *testing.M) {
	b := owrt.New(nil, owrt.Options{Line: router.Line2410})
	b.PowerOn()
	_ = b.WaitBoot(context.Background())
	b.Close()
	os.Exit(m.Run())
}

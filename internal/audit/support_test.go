package audit_test

import (
	"context"

	"github.com/sallyport-project/sallyport/internal/audit"
	"github.com/sallyport-project/sallyport/internal/fault"
)

type key struct {
	level int
	index uint64
}

// shelf keeps tiles as a store does: the newest form of each.
type shelf map[key][]byte

func (s shelf) put(tiles []audit.Tile) {
	for _, t := range tiles {
		s[key{t.Level, t.Index}] = t.Data
	}
}

func (s shelf) Tile(_ context.Context, level int, index uint64) ([]byte, error) {
	if data, ok := s[key{level, index}]; ok {
		return data, nil
	}
	return nil, fault.NotFoundf("no such tile")
}

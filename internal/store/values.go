package store

import (
	"context"
	"strings"

	"github.com/sallyport-project/sallyport/internal/plugin"
)

// PluginValue reads what a plugin keeps under a key of its space.
func (s *Store) PluginValue(ctx context.Context, space, key string) (plugin.Value, error) {
	return one[plugin.Value](ctx, s, "value", "plugin_values", "WHERE id = $1", plugin.ValueID(space, key))
}

// PluginKeys lists the keys of a space from one on, sorted by bytes: at most so
// many. They are not verified, as values are when they are read.
func (s *Store) PluginKeys(ctx context.Context, space, from string, limit int) ([]string, error) {
	first, end := plugin.ValueIDs(space)
	var keys []string
	err := s.query(ctx, "SELECT id FROM plugin_values WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3",
		[]any{first + from, end, int64(limit)}, func(rows foundRow) error {
			var id string
			err := rows.Scan(&id)
			keys = append(keys, strings.TrimPrefix(id, first))
			return err //nolint:wrapcheck // query's
		})
	return keys, err
}

// CountPluginKeys counts the keys of a space.
func (s *Store) CountPluginKeys(ctx context.Context, space string) (int64, error) {
	first, end := plugin.ValueIDs(space)
	return s.number(ctx, "key", "SELECT count(*) FROM plugin_values WHERE id >= $1 AND id < $2", first, end)
}

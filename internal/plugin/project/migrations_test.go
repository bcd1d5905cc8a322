package project

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

func TestMigrations_Read(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "migrations"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"0002_more.sqlite.sql": "two", "0002_more.postgres.sql": "zwei", "0001_tags.sql": "one", "notes.txt": "x"} {
		if err := os.WriteFile(filepath.Join(dir, "migrations", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := manifest.Manifest{Extension: &manifest.Extension{}}
	if err := Migrations(dir, &m); err != nil {
		t.Fatal(err)
	}
	want := []manifest.Migration{{Name: "0001_tags", SQL: "one"}, {Name: "0002_more", SQLite: "two", Postgres: "zwei"}}
	if diff := cmp.Diff(want, m.Extension.Migrations); diff != "" {
		t.Error(diff)
	}
	own := manifest.Manifest{Extension: &manifest.Extension{Migrations: []manifest.Migration{{Name: "0001_own"}}}}
	if err := Migrations(dir, &own); err != nil || len(own.Extension.Migrations) != 1 {
		t.Errorf("what plugin.json says itself: %v, %v", own.Extension.Migrations, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "migrations", "0003_x.mysql.sql"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Migrations(dir, &manifest.Manifest{Extension: &manifest.Extension{}}); err == nil {
		t.Error("another engine is accepted")
	}
}

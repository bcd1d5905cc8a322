// Package python carries the sources of the SDKs for Python, so that plugin build
// packs the one that fits this version of the host, and needs no index for it.
package python

import (
	"embed"
	"io/fs"
	"regexp"
)

// SDK is one distribution.
type SDK struct {
	Name    string // of the distribution, as PEP 503 writes it
	Version string
	Files   fs.FS // with the folder of the package at its top
}

//go:embed sallyport_sdk/pyproject.toml sallyport_sdk/src/sallyport_sdk/*.py sallyport_sdk/src/sallyport_sdk/*/*.py sallyport_sdk/src/sallyport_sdk/py.typed
var sources embed.FS

var version = regexp.MustCompile(`(?m)^version = "([^"]+)"$`)

// SDKs lists what is carried.
func SDKs() ([]SDK, error) {
	project, err := sources.ReadFile("sallyport_sdk/pyproject.toml")
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(sources, "sallyport_sdk/src")
	if err != nil {
		return nil, err
	}
	return []SDK{{Name: "sallyport-sdk", Version: string(version.FindSubmatch(project)[1]), Files: files}}, nil
}

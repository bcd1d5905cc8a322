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
//go:embed kbs_plugin_sdk/pyproject.toml kbs_plugin_sdk/src/kbs_plugin_sdk/*.py kbs_plugin_sdk/src/kbs_plugin_sdk/*/*.py kbs_plugin_sdk/src/kbs_plugin_sdk/py.typed
var sources embed.FS

var version = regexp.MustCompile(`(?m)^version = "([^"]+)"$`)

// SDKs lists what is carried.
func SDKs() ([]SDK, error) {
	var out []SDK
	for folder, name := range map[string]string{"sallyport_sdk": "sallyport-sdk", "kbs_plugin_sdk": "kbs-plugin-sdk"} {
		project, err := sources.ReadFile(folder + "/pyproject.toml")
		if err != nil {
			return nil, err
		}
		files, err := fs.Sub(sources, folder+"/src")
		if err != nil {
			return nil, err
		}
		out = append(out, SDK{Name: name, Version: string(version.FindSubmatch(project)[1]), Files: files})
	}
	return out, nil
}

package conformance

import (
	"path/filepath"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin"
)

var (
	hasSignature = expectation{
		"package/signature", "it is signed by the publisher's key",
		"sign it with: sallyport plugin sign FILE --key PREFIX.key",
	}
	isReproducible = expectation{
		"package/reproducible", "two builds of the same source are equal",
		"take times, paths and random names out of the build; for Go, build with -trimpath and without a build id",
	}
)

// packageChecks judge the file. That it is well-formed is known already.
func (r *run) packageChecks() {
	if r.Key == nil {
		r.add(hasSignature, Skipped, "no key was given: --key PUB")
	} else {
		key, err := plugin.NewKey(r.Key, r.m.Publisher, nil, "", now())
		if err == nil {
			_, err = plugin.Verify(r.Package, plugin.Trust{Keys: []plugin.Key{key}})
			if plugin.ReasonOf(err) != plugin.ReasonBadSignature {
				err = nil // what else it is refused for, other checks say
			}
		}
		r.judge(hasSignature, text(err), "by "+plugin.KeyID(r.Key))
	}
	if r.Again == nil {
		r.add(isReproducible, Skipped, "this is a package: give the folder with its source")
		return
	}
	second := filepath.Join(r.dir, "again")
	err := r.Again(second)
	if err == nil {
		var again plugin.Report
		if again, err = plugin.Inspect(second); err == nil && again.Digest != r.digest {
			r.add(isReproducible, Fail, "the digests are "+r.digest+" and "+again.Digest)
			return
		}
	}
	r.judge(isReproducible, text(err), "twice "+r.digest)
}

// text is what a fault says, empty for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return fault.Public(err)
}

package app

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/reference"
	"github.com/sallyport-project/sallyport/internal/reference/fetch"
	"github.com/sallyport-project/sallyport/internal/verifier/snp"
	"github.com/sallyport-project/sallyport/internal/verifier/tdx"
	"github.com/sallyport-project/sallyport/internal/verifier/tpm"
)

// recognisers read reference material, each that of its kinds of evidence. The
// last one takes whatever is a revocation list.
var recognisers = []func([]byte) ([]evidence.Endorsement, error){snp.Recognise, tdx.Recognise, tpm.Recognise}

// library knows the verifiers that are switched on.
type library struct{ cfg Verifiers }

var _ flow.Library = library{}

// Verifiers implements flow.Library.
func (l library) Verifiers(from evidence.Shelf) (evidence.Verifiers, error) { return l.cfg.open(from) }

// Read implements flow.Library.
func (library) Read(files []reference.File, kind string, from evidence.Shelf) ([]reference.Found, error) {
	return readMaterial(files, kind, from)
}

func readMaterial(files []reference.File, kind string, from evidence.Shelf) ([]reference.Found, error) {
	if kind != "" && kind != tpm.KindAuthorities {
		return nil, fault.Invalidf("of the kinds only %s is taken on an operator's word", tpm.KindAuthorities)
	}
	var out []reference.Found
	shelf := from.Clone()
	for _, f := range files {
		list, err := recognise(f, kind)
		if err != nil {
			return nil, fault.Invalidf("%s: %s", f.Name, fault.Public(err)).Because(err)
		}
		for _, e := range list {
			shelf.Put(e)
			out = append(out, reference.Found{File: f.Name, Endorsement: e})
		}
	}
	for _, f := range out {
		for _, vouch := range []func(evidence.Endorsement, evidence.Shelf) error{tpm.Vouch, func(e evidence.Endorsement, s evidence.Shelf) error { return tdx.Vouch(e, s) }} {
			if err := vouch(f.Endorsement, shelf); err != nil {
				return nil, fault.Invalidf("%s: %s", f.File, fault.Public(err)).Because(err)
			}
		}
	}
	return out, nil
}

// recognise reads one file; Invalid if nothing is recognised in it.
func recognise(f reference.File, kind string) ([]evidence.Endorsement, error) {
	if kind == tpm.KindAuthorities {
		return tpm.RecogniseAuthorities(f.Name, f.Data)
	}
	for _, read := range recognisers {
		if list, err := read(f.Data); err != nil || len(list) > 0 {
			return list, err
		}
	}
	return nil, fault.Invalidf("this is no reference material that is known")
}

// fetcher gets endorsements from the key distribution service of AMD and from the
// provisioning certification service of Intel, or caches of them.
type fetcher struct {
	kds, pcs string // without a path
	client   *fetch.Client
}

var _ flow.Fetcher = (*fetcher)(nil)

// intelRoot is where Intel has the revocation list of its root, which the service
// itself does not have.
const intelHost, intelRoot = "api.trustedservices.intel.com", "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// open makes the fetcher; nil if nothing is to be fetched.
func (f Fetch) open() (flow.Fetcher, error) {
	if f.KDS == "" && f.PCS == "" {
		return nil, nil //nolint:nilnil // nothing is fetched
	}
	out := &fetcher{kds: strings.TrimSuffix(f.KDS, "/"), pcs: strings.TrimSuffix(f.PCS, "/")}
	var hosts []string
	for _, base := range []string{out.kds, out.pcs} {
		if base == "" {
			continue
		}
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, fault.Invalidf("verifiers.fetch: %s is no https address without user, query and fragment", base)
		}
		hosts = append(hosts, u.Host)
		if u.Host == intelHost {
			hosts = append(hosts, strings.TrimPrefix(intelRoot[:strings.LastIndex(intelRoot, "/")], "https://"))
		}
	}
	var roots *x509.CertPool
	if f.Roots != "" {
		text, err := os.ReadFile(f.Roots)
		if err != nil {
			return nil, fault.Unavailablef("verifiers.fetch: the file of roots %s cannot be read", f.Roots).Because(err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(text) {
			return nil, fault.Invalidf("verifiers.fetch: the file of roots %s has no certificate in PEM", f.Roots)
		}
	}
	out.client = fetch.New(fetch.Config{Hosts: hosts, Roots: roots, Most: reference.MaxFile, Now: time.Now})
	return out, nil
}

// With implements flow.Fetcher.
func (f *fetcher) With(w evidence.Want) []evidence.Want { return append(tdx.With(w), snp.With(w)...) }

// Fetch implements flow.Fetcher.
func (f *fetcher) Fetch(ctx context.Context, w evidence.Want) ([]reference.File, error) {
	if path := snp.Path(w); path != "" && f.kds != "" {
		body, _, err := f.client.Get(ctx, f.kds+path)
		return []reference.File{{Name: f.kds + path, Data: body}}, err
	}
	path, chain := tdx.Path(w)
	if path == "" || f.pcs == "" {
		return nil, fault.NotFoundf("endorsements of kind %s are not fetched", w.Kind)
	}
	address := f.pcs + path
	if f.pcs == "https://"+intelHost && chain == "" {
		address = intelRoot
	}
	body, header, err := f.client.Get(ctx, address)
	if err != nil {
		return nil, err
	}
	if der, err := hex.DecodeString(strings.TrimSpace(string(body))); err == nil { // a cache hands the root's list out so
		body = der
	}
	files := []reference.File{{Name: address, Data: body}}
	if chain != "" {
		text, err := url.QueryUnescape(header.Get(chain))
		if err != nil || text == "" {
			return nil, fault.Unavailablef("the answer has no chain of its signer in the header %s", chain)
		}
		files = append(files, reference.File{Name: address + " (" + chain + ")", Data: []byte(text)})
	}
	return files, nil
}

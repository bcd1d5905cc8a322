package kbs

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
)

// credentialLife is the lifetime that is asked for where the query has no ttl.
const credentialLife = 5 * time.Minute

// credential vends a credential to an attested guest:
// GET external/credentials/<kind>?ttl=300&name=value&list[]=a,b.
func (d door) credential(w http.ResponseWriter, r *http.Request, kind []string) {
	caller, attested, ok := d.guest(w, r)
	if !ok {
		return
	}
	if r.Method != http.MethodGet || len(kind) != 1 {
		d.fail(w, r, refused(evidence.PluginInternalError, "a credential is fetched by GET external/credentials/<kind>"))
		return
	}
	query := lastOfEach(r)
	request, err := credentialRequest(kind[0], query)
	if err != nil {
		d.fail(w, r, release(err))
		return
	}
	sealed, err := d.Gate.VendToGuest(r.Context(), caller, attested, request, query)
	d.counts.decision(err)
	if err != nil {
		d.fail(w, r, release(err))
		return
	}
	d.answer(w, r, sealed)
}

// credentialRequest reads a query: ttl in seconds; a name that ends with [] is a
// list, separated by commas; everything else is a parameter of its kind.
func credentialRequest(kind string, query map[string]string) (flow.VendRequest, error) {
	out := flow.VendRequest{Kind: kind, Params: map[string]any{}, TTL: credentialLife}
	for name, value := range query {
		if name == "ttl" {
			seconds, err := strconv.Atoi(value)
			if err != nil || seconds < 1 || seconds > 365*24*3600 {
				return out, fault.Invalidf("ttl is a lifetime in seconds")
			}
			out.TTL = time.Duration(seconds) * time.Second
			continue
		}
		plain, list := strings.CutSuffix(name, "[]")
		if _, twice := query[plain]; twice && list {
			return out, fault.Invalidf("a parameter is a text or a list: the query has %.64q as both", plain)
		}
		if !list {
			out.Params[name] = value
			continue
		}
		var values []any
		for one := range strings.SplitSeq(value, ",") {
			values = append(values, one)
		}
		out.Params[plain] = values
	}
	return out, nil
}

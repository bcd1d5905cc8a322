package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/reference"
)

// materialBody is the limit of an import: files of 2 MiB each, in base64.
const materialBody = 16 << 20

type fileView struct {
	Name string `json:"name" doc:"Where it comes from, for people."`
	Data []byte `json:"data"`
}

type importBody struct {
	Files []fileView `json:"files" nullable:"false"`
	Kind  string     `json:"kind,omitempty" doc:"tpm-ek-ca: the files are certificates of authorities that TPMs are believed by, on the operator's word."`
}

type importedView struct {
	ID       string    `json:"id"`
	File     string    `json:"file"`
	SHA256   string    `json:"sha256"`
	Version  int64     `json:"version"`
	Changed  bool      `json:"changed" doc:"False: these bytes were stored already."`
	NotAfter time.Time `json:"not_after,omitzero" doc:"When it ends; absent for never. What has ended is stored all the same."`
}

type importView struct {
	Items []importedView `json:"items" nullable:"false"`
}

type endorsementView struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"`
	Key       string    `json:"key,omitempty"`
	Version   int64     `json:"version"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero" doc:"Until when the maker's word counts."`
	SHA256    string    `json:"sha256"`
	Source    string    `json:"source" doc:"The file or the address that it came from."`
	Author    string    `json:"author,omitempty" doc:"Who imported it; absent for what the server fetched."`
	At        time.Time `json:"at"`
	Data      []byte    `json:"data,omitempty" doc:"Only when one is read."`
}

type endorsementsView struct {
	Items []endorsementView `json:"items" nullable:"false"`
}

type settingView struct {
	Name    string          `json:"name"`
	Value   json.RawMessage `json:"value" doc:"Any JSON value."`
	Expires time.Time       `json:"expires,omitzero" doc:"A year from now by default."`
}

type settingsBody struct {
	Values []settingView `json:"values" nullable:"false"`
	Source string        `json:"source,omitempty" enum:"set,record" doc:"How they came."`
}

type valueView struct {
	Name    string          `json:"name"`
	Value   json.RawMessage `json:"value"`
	Version int64           `json:"version"`
	Expires time.Time       `json:"expires"`
	Source  string          `json:"source" doc:"set, record or message."`
	Author  string          `json:"author"`
	At      time.Time       `json:"at"`
}

type valuesView struct {
	Items []valueView `json:"items" nullable:"false"`
}

type recordedDeviceView struct {
	Name   string         `json:"name" doc:"cpu0"`
	TEE    string         `json:"tee"`
	Claims map[string]any `json:"claims"`
}

type recordedView struct {
	Record  string               `json:"record"`
	Devices []recordedDeviceView `json:"devices" nullable:"false"`
}

func (d *Door) references() []route {
	const tag, one = "reference", "/v1/reference/endorsements/{id}" // an id and a name may hold slashes, which are sent encoded
	return []route{
		endpoint(route{
			id: "list-endorsements", method: http.MethodGet, path: "/v1/reference/endorsements", tag: tag, summary: "List what makers say of their devices",
		}, d.listEndorsements),
		endpoint(route{
			id: "import-endorsements", method: http.MethodPost, path: "/v1/reference/endorsements", tag: tag, keyed: true, limit: materialBody,
			summary: "Store what makers say of their devices",
			about:   "Certificates, revocation lists and collateral, as their makers hand them out. Each is verified by its maker's keys. All are stored, or none.",
		}, d.importEndorsements),
		endpoint(route{id: "read-endorsement", method: http.MethodGet, path: one, tag: tag, summary: "Read an endorsement"}, d.readEndorsement),
		endpoint(route{id: "remove-endorsement", method: http.MethodDelete, path: one, tag: tag, keyed: true, summary: "Take an endorsement out of use"}, d.removeEndorsement),
		endpoint(route{
			id: "list-reference-values", method: http.MethodGet, path: "/v1/reference/values", tag: tag, summary: "List what evidence is compared with",
		}, d.listValues),
		endpoint(route{
			id: "set-reference-values", method: http.MethodPut, path: "/v1/reference/values", tag: tag, keyed: true, limit: reference.MaxMessage,
			summary: "Set what evidence is compared with", about: "Each value replaces what its name had. All are set, or none.",
		}, d.setValues),
		endpoint(route{
			id: "read-reference-value", method: http.MethodGet, path: "/v1/reference/values/{name}", tag: tag, summary: "Read a reference value",
		}, d.readValue),
		endpoint(route{
			id: "remove-reference-value", method: http.MethodDelete, path: "/v1/reference/values/{name}", tag: tag, keyed: true,
			summary: "Take a reference value out of use",
		}, d.removeValue),
		endpoint(route{
			id: "read-recorded-claims", method: http.MethodGet, path: "/v1/reference/claims/{record}", tag: tag,
			summary: "Read what an attested guest's evidence said",
			about:   "By the record of the decision, until the attestation result expires: to make reference values of it.",
		}, d.readClaims),
	}
}

func viewEndorsement(e reference.Endorsement) endorsementView {
	return endorsementView{
		ID: e.ID(), Kind: e.Kind, Key: e.Key, Version: e.Version, NotBefore: moment(e.NotBefore), NotAfter: moment(e.NotAfter),
		SHA256: e.SHA256(), Source: e.Source, Author: e.Author, At: e.At.UTC(),
	}
}

func (d *Door) listEndorsements(ctx context.Context, x *exchange, _ none) (endorsementsView, error) {
	all, err := d.cfg.Gate.Endorsements(ctx, x.caller)
	if err != nil {
		return endorsementsView{}, err
	}
	return endorsementsView{paged(all, 0, viewEndorsement, nil).Items}, nil
}

func (d *Door) importEndorsements(ctx context.Context, x *exchange, in importBody) (importView, error) {
	files := make([]reference.File, len(in.Files))
	for i, f := range in.Files {
		files[i] = reference.File(f)
	}
	all, err := d.cfg.Gate.ImportEndorsements(ctx, x.caller, files, in.Kind)
	if err != nil {
		return importView{}, err
	}
	return importView{paged(all, 0, func(i flow.Imported) importedView { return importedView(i) }, nil).Items}, nil
}

func (d *Door) readEndorsement(ctx context.Context, x *exchange, _ none) (endorsementView, error) {
	all, err := d.cfg.Gate.Endorsements(ctx, x.caller)
	if err != nil {
		return endorsementView{}, err
	}
	for _, e := range all {
		if e.ID() == x.value("id") {
			out := viewEndorsement(e)
			out.Data = e.Data
			return out, nil
		}
	}
	return endorsementView{}, reference.NoEndorsement(x.value("id"))
}

func (d *Door) removeEndorsement(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RemoveEndorsement(ctx, x.caller, x.value("id"))
}

func viewValue(v reference.Value) valueView {
	return valueView{Name: v.Name, Value: v.JSON, Version: v.Version, Expires: v.Expires.UTC(), Source: v.Source, Author: v.Author, At: v.At.UTC()}
}

func (d *Door) listValues(ctx context.Context, x *exchange, _ none) (valuesView, error) {
	all, err := d.cfg.Gate.ReferenceValues(ctx, x.caller)
	if err != nil {
		return valuesView{}, err
	}
	return valuesView{paged(all, 0, viewValue, nil).Items}, nil
}

func (d *Door) setValues(ctx context.Context, x *exchange, in settingsBody) (valuesView, error) {
	switch in.Source {
	case "":
		in.Source = "set"
	case "set", "record":
	default:
		return valuesView{}, fault.Invalidf("source is set or record")
	}
	list := make([]reference.Setting, len(in.Values))
	for i, v := range in.Values {
		list[i] = reference.Setting{Name: v.Name, JSON: v.Value, Expires: v.Expires}
	}
	all, err := d.cfg.Gate.SetReferenceValues(ctx, x.caller, list, in.Source)
	if err != nil {
		return valuesView{}, err
	}
	return valuesView{paged(all, 0, viewValue, nil).Items}, nil
}

func (d *Door) readValue(ctx context.Context, x *exchange, _ none) (valueView, error) {
	v, err := d.cfg.Gate.ReferenceValue(ctx, x.caller, x.value("name"))
	if err != nil {
		return valueView{}, err
	}
	return viewValue(v), nil
}

func (d *Door) removeValue(ctx context.Context, x *exchange, _ none) (none, error) {
	return none{}, d.cfg.Gate.RemoveReferenceValue(ctx, x.caller, x.value("name"))
}

func (d *Door) readClaims(ctx context.Context, x *exchange, _ none) (recordedView, error) {
	r, err := d.cfg.Gate.RecordedClaims(ctx, x.caller, x.value("record"))
	if err != nil {
		return recordedView{}, err
	}
	view := func(o flow.RecordedDevice) recordedDeviceView { return recordedDeviceView(o) }
	return recordedView{r.Record, paged(r.Devices, 0, view, nil).Items}, nil
}

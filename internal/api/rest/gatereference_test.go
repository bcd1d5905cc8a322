package rest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sallyport-project/sallyport/internal/evidence"
	"github.com/sallyport-project/sallyport/internal/flow"
	"github.com/sallyport-project/sallyport/internal/reference"
	sallyport "github.com/sallyport-project/sallyport/sdk"
)

func (g *gate) Endorsements(context.Context, flow.Caller) ([]reference.Endorsement, error) {
	e := evidence.Endorsement{Kind: "snp-crl", Key: "Genoa", Data: []byte{1}, NotAfter: time.Unix(4e9, 0)}
	return []reference.Endorsement{{Endorsement: e, Version: 2, Source: "genoa.crl"}}, g.called("Endorsements", nil)
}

func (g *gate) ImportEndorsements(_ context.Context, _ flow.Caller, files []reference.File, kind string) ([]flow.Imported, error) {
	return []flow.Imported{{ID: "snp-crl/Genoa", File: files[0].Name, Version: 1, Changed: true}}, g.called("ImportEndorsements", kind+string(files[0].Data))
}

func (g *gate) RemoveEndorsement(_ context.Context, _ flow.Caller, id string) error {
	return g.called("RemoveEndorsement", id)
}

func (g *gate) ReferenceValues(context.Context, flow.Caller) ([]reference.Value, error) {
	return []reference.Value{{Name: "svn", JSON: []byte(`["1"]`), Version: 1}}, g.called("ReferenceValues", nil)
}

func (g *gate) ReferenceValue(_ context.Context, _ flow.Caller, name string) (reference.Value, error) {
	return reference.Value{Name: name, JSON: []byte("1"), Version: 1}, g.called("ReferenceValue", name)
}

func (g *gate) SetReferenceValues(_ context.Context, _ flow.Caller, list []reference.Setting, source string) ([]reference.Value, error) {
	return []reference.Value{{Name: list[0].Name, JSON: list[0].JSON, Version: 1, Source: source, Expires: list[0].Expires}}, g.called("SetReferenceValues", list)
}

func (g *gate) RemoveReferenceValue(_ context.Context, _ flow.Caller, name string) error {
	return g.called("RemoveReferenceValue", name)
}

func (g *gate) RecordedClaims(_ context.Context, _ flow.Caller, record string) (flow.Recorded, error) {
	return flow.Recorded{Record: record, Devices: []flow.RecordedDevice{{Name: "cpu0", TEE: "snp", Claims: map[string]any{"chip_id": "00"}}}}, g.called("RecordedClaims", record)
}

// referenceCalls are the SDK's calls about reference material.
func referenceCalls(ctx context.Context, h *house, c *sallyport.Client) map[string]func() (bool, error) {
	return map[string]func() (bool, error){
		"Endorsements": func() (bool, error) {
			p, err := c.Endorsements(ctx)
			return p.Items[0].ID == "snp-crl/Genoa" && p.Items[0].Data == nil && p.Items[0].NotAfter.Equal(time.Unix(4e9, 0)), err
		},
		"Endorsement": func() (bool, error) {
			e, err := c.Endorsement(ctx, "snp-crl/Genoa")
			return string(e.Data) == "\x01", err
		},
		"ImportEndorsements": func() (bool, error) {
			i, err := c.ImportEndorsements(ctx, []sallyport.ReferenceFile{{Name: "x", Data: []byte{0, 255}}}, "tpm-ek-ca")
			return i[0].Changed && i[0].File == "x" && h.gate.last == "tpm-ek-ca\x00\xff", err
		},
		"RemoveEndorsement": func() (bool, error) {
			err := c.RemoveEndorsement(ctx, "snp-vcek/Genoa/00/11")
			return h.gate.last == "snp-vcek/Genoa/00/11", err
		},
		"ReferenceValues": func() (bool, error) {
			p, err := c.ReferenceValues(ctx)
			return string(p.Items[0].Value) == `["1"]`, err
		},
		"ReferenceValue": func() (bool, error) {
			v, err := c.ReferenceValue(ctx, "a/b")
			return v.Name == "a/b" && string(v.Value) == "1", err
		},
		"SetReferenceValues": func() (bool, error) {
			end := time.Unix(4e9, 0)
			v, err := c.SetReferenceValues(ctx, []sallyport.ReferenceSetting{{Name: "n", Value: json.RawMessage(`{"a":[1]}`), Expires: end}}, "record")
			return string(v[0].Value) == `{"a":[1]}` && v[0].Source == "record" && v[0].Expires.Equal(end), err
		},
		"RemoveReferenceValue": func() (bool, error) { return true, c.RemoveReferenceValue(ctx, "a/b") },
		"RecordedClaims":       func() (bool, error) { d, err := c.RecordedClaims(ctx, "r"); return d[0].Claims["chip_id"] == "00", err },
	}
}

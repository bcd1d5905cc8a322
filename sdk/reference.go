package sallyport

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Endorsement is what the maker of a device says about it: a certificate, a
// revocation list, collateral. Data is set when one is read by its id.
type Endorsement struct {
	ID        string    `json:"id"` // kind/key
	Kind      string    `json:"kind"`
	Key       string    `json:"key,omitempty"`
	Version   int64     `json:"version"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	SHA256    string    `json:"sha256"`
	Source    string    `json:"source"`           // the file or the address that it came from
	Author    string    `json:"author,omitempty"` // empty for what the server fetched
	At        time.Time `json:"at"`
	Data      []byte    `json:"data,omitempty"`
}

// ReferenceFile is a file of reference material.
type ReferenceFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Imported is an endorsement after an import.
type Imported struct {
	ID       string    `json:"id"`
	File     string    `json:"file"`
	SHA256   string    `json:"sha256"`
	Version  int64     `json:"version"`
	Changed  bool      `json:"changed"`            // false: these bytes were stored already
	NotAfter time.Time `json:"not_after,omitzero"` // what has ended is stored all the same
}

// Endorsements lists what makers say about their devices.
func (c *Client) Endorsements(ctx context.Context) (Page[Endorsement], error) {
	return list[Endorsement](ctx, c, get("/v1/reference/endorsements"))
}

// Endorsement reads one by its id.
func (c *Client) Endorsement(ctx context.Context, id string) (Endorsement, error) {
	var out Endorsement
	r := get(join("/v1/reference/endorsements/{}", id))
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out, err
}

// ImportEndorsements stores endorsements, all or none, after the server verified
// them. kind is empty, or tpm-ek-ca for certificates of authorities that the
// endorsement keys of TPMs are believed by. At most 64 files at once.
func (c *Client) ImportEndorsements(ctx context.Context, files []ReferenceFile, kind string) ([]Imported, error) {
	body := struct {
		Files []ReferenceFile `json:"files"`
		Kind  string          `json:"kind,omitempty"`
	}{files, kind}
	var out struct {
		Items []Imported `json:"items"`
	}
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/reference/endorsements", body: body, keyed: true, limit: maxList}, &out)
	return out.Items, err
}

// RemoveEndorsement takes an endorsement out of use.
func (c *Client) RemoveEndorsement(ctx context.Context, id string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/reference/endorsements/{}", id), keyed: true}, nil)
	return err
}

// ReferenceValue is what appraisal policies compare evidence with.
type ReferenceValue struct {
	Name    string          `json:"name"`
	Value   json.RawMessage `json:"value"`
	Version int64           `json:"version"`
	Expires time.Time       `json:"expires"`
	Source  string          `json:"source"` // set, record or message
	Author  string          `json:"author"`
	At      time.Time       `json:"at"`
}

// ReferenceSetting is a reference value to set; it expires after a year if it does
// not say.
type ReferenceSetting struct {
	Name    string          `json:"name"`
	Value   json.RawMessage `json:"value"`
	Expires time.Time       `json:"expires,omitzero"`
}

// ReferenceValues lists the reference values, expired ones too.
func (c *Client) ReferenceValues(ctx context.Context) (Page[ReferenceValue], error) {
	return list[ReferenceValue](ctx, c, get("/v1/reference/values"))
}

// ReferenceValue reads one by its name. One that has expired is [NotFound].
func (c *Client) ReferenceValue(ctx context.Context, name string) (ReferenceValue, error) {
	var out ReferenceValue
	_, err := c.do(ctx, get(join("/v1/reference/values/{}", name)), &out)
	return out, err
}

// SetReferenceValues sets values, all or none. source is set, or record for what
// was taken from evidence.
func (c *Client) SetReferenceValues(ctx context.Context, values []ReferenceSetting, source string) ([]ReferenceValue, error) {
	body := struct {
		Values []ReferenceSetting `json:"values"`
		Source string             `json:"source,omitempty"`
	}{values, source}
	var out struct {
		Items []ReferenceValue `json:"items"`
	}
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/v1/reference/values", body: body, keyed: true, limit: maxList}, &out)
	return out.Items, err
}

// RemoveReferenceValue takes a value out of use.
func (c *Client) RemoveReferenceValue(ctx context.Context, name string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: join("/v1/reference/values/{}", name), keyed: true}, nil)
	return err
}

// RecordedDevice is what the evidence of one device said.
type RecordedDevice struct {
	Name   string         `json:"name"` // cpu0
	TEE    string         `json:"tee"`
	Claims map[string]any `json:"claims"`
}

// RecordedClaims reads what an attested guest's evidence said, by the record of
// the decision, until the attestation result expires.
func (c *Client) RecordedClaims(ctx context.Context, record string) ([]RecordedDevice, error) {
	var out struct {
		Devices []RecordedDevice `json:"devices"`
	}
	r := get(join("/v1/reference/claims/{}", record))
	r.limit = maxList
	_, err := c.do(ctx, r, &out)
	return out.Devices, err
}

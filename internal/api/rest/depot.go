package rest

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// The fields of an upload's form. Who made curl lines for Kilometers sends the
// customer too; a package says itself whom it is for, so it counts for nothing.
const (
	formPackage  = "plugin"
	formCustomer = "customer_id"
	maxCustomer  = 256
)

func (d *Door) depot() []route {
	return []route{
		endpoint(route{
			id: "upload-package", method: http.MethodPost, path: "/plugins/upload", tag: "plugins", limit: packageBody + smallBody,
			status: http.StatusCreated, summary: "Take a package into this server's own repository", uploads: true,
			about: "A form with the package in the field plugin. It needs a session whose scopes are administer:package and administer:package/NAME, " +
				"or an upload token; a signature of a trusted publisher; and a repository in the server's configuration. The same package again changes nothing.",
		}, d.uploadPackage),
		endpoint(route{
			id: "read-repository", method: http.MethodGet, path: "/plugins/repository/{path...}", tag: "plugins", open: true, kind: binaryKind,
			summary: "Read a file of this server's own repository",
		}, d.readRepository),
	}
}

func (d *Door) uploadPackage(ctx context.Context, x *exchange, in form) (releaseView, error) {
	r, err := d.cfg.Gate.UploadPackage(ctx, x.caller, in)
	return viewRelease(r), err
}

func (d *Door) readRepository(_ context.Context, x *exchange, _ none) (download, error) {
	f, size, err := d.cfg.Gate.RepositoryFile(x.value("path"))
	return download{f, size}, err
}

// part finds the package in a form. What comes before it may be the customer's
// name and nothing else; what comes after it is looked at when it was read.
func (x *exchange) part(body io.Reader) (io.Reader, error) {
	kind, params, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return nil, fault.Invalidf("send a form (multipart/form-data) with the package in the field %s", formPackage)
	}
	u := &upload{form: multipart.NewReader(body, params["boundary"])}
	return u, u.next()
}

// upload reads the one package of a form.
type upload struct {
	form *multipart.Reader
	part *multipart.Part // nil at the end
	seen bool
}

// next goes to the package, or after it to the end.
func (u *upload) next() error {
	for {
		part, err := u.form.NextRawPart()
		switch {
		case errors.Is(err, io.EOF) && u.seen:
			u.part = nil
			return nil
		case errors.Is(err, io.EOF):
			return fault.Invalidf("the form has no field %s with the package", formPackage)
		case err != nil:
			return formFault(err)
		}
		switch name := part.FormName(); {
		case name == formPackage && !u.seen:
			u.part, u.seen = part, true
			return nil
		case name == formCustomer:
			if n, err := io.Copy(io.Discard, io.LimitReader(part, maxCustomer+1)); err != nil || n > maxCustomer {
				return fault.Invalidf("the field %s must have at most %d bytes", formCustomer, maxCustomer)
			}
		default:
			return fault.Invalidf("the form has a field that is not known here, or one twice; send %s alone", formPackage)
		}
	}
}

// Read reads the package, and demands that nothing foreign follows it.
func (u *upload) Read(p []byte) (int, error) {
	if u.part == nil {
		return 0, io.EOF
	}
	n, err := u.part.Read(p)
	if errors.Is(err, io.EOF) {
		if err := u.next(); err != nil {
			return n, err
		}
		return n, io.EOF
	}
	if err != nil {
		return n, formFault(err)
	}
	return n, nil
}

func formFault(err error) error {
	if fault.KindOf(err) != fault.Internal {
		return err
	}
	return fault.Invalidf("the form is malformed, or did not arrive completely").Because(err)
}

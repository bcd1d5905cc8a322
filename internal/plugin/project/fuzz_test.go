package project

import (
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/internal/fault"
)

func FuzzPyproject(f *testing.F) {
	f.Add([]byte(pyproject))
	f.Add([]byte("[project]\nname='x'\nversion='1'\nentry-points.attestation_extensions.a = 'b:c'"))
	f.Add([]byte("[[a]]\n[a.b]\nc=[[[[]]]]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		about, err := readPyproject(text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v", err)
			}
			return
		}
		if about.name == "" || about.version == "" {
			t.Fatal("a project without a name")
		}
	})
}

func FuzzWheel(f *testing.F) {
	f.Add("leaf/x.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nleaf-1.0.dist-info/RECORD,,\n", "[attestation_extensions]\na = b:c\n", "leaf==1.0 --hash=sha256:"+strings.Repeat("0", 64))
	f.Add("\"a\nb\",,\n", "[x\n", "a==1 ; python_version>'3' --hash=sha256:0")
	f.Fuzz(func(t *testing.T, record, points, lock string) {
		if sums, err := parseRecord([]byte(record)); err == nil {
			for name, sum := range sums {
				if sum != nil && len(sum) != 32 {
					t.Fatalf("%q has a digest of %d bytes", name, len(sum))
				}
			}
		}
		if _, err := parseEntryPoints([]byte(points)); err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		required, err := parseLock([]byte(lock))
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatal(err)
		}
		for _, r := range required {
			if err == nil && len(r.hashes) == 0 {
				t.Fatal("a requirement without a hash")
			}
		}
	})
}

func FuzzWheelFile(f *testing.F) {
	file, _ := makeWheel(f, f.TempDir(), "leaf-1.0-py3-none-any.whl", map[string]string{"leaf/__init__.py": "x"})
	data, err := readFile(file, maxWheel)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := openWheel("leaf-1.0-py3-none-any.whl", data)
		if err != nil {
			return
		}
		files, _, err := w.sources(vendorFolder)
		if err != nil {
			return
		}
		for _, s := range files {
			if !strings.HasPrefix(s.Path, vendorFolder+"/") {
				t.Fatalf("%q is outside", s.Path)
			}
		}
	})
}

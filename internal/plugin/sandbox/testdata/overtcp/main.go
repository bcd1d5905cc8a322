// Command overtcp is a plugin as Python's are: it serves agentkms.plugin.v1 on a
// TCP port of the loopback interface, without certificates. Called by another
// name than overtcp it announces what it must not.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
)

type validator struct {
	akms.UnimplementedScopeValidatorServiceServer
}

func (validator) Kind(context.Context, *akms.KindRequest) (*akms.KindResponse, error) {
	return &akms.KindResponse{Kind: kind()}, nil
}

func (validator) Validate(context.Context, *akms.ValidateRequest) (*akms.ValidateResponse, error) {
	return &akms.ValidateResponse{}, nil
}

func (validator) Narrow(_ context.Context, q *akms.NarrowRequest) (*akms.NarrowResponse, error) {
	return &akms.NarrowResponse{NarrowedScope: q.GetRequested()}, nil
}

type vender struct {
	akms.UnimplementedCredentialVenderServiceServer
}

func (vender) Kind(context.Context, *akms.KindRequest) (*akms.KindResponse, error) {
	return &akms.KindResponse{Kind: kind()}, nil
}

func (vender) Vend(_ context.Context, q *akms.VendRequest) (*akms.VendResponse, error) {
	if q.GetScope().GetParams().AsMap()["do"] == "die" {
		os.Exit(3)
	}
	return &akms.VendResponse{Credential: &akms.VendedCredential{ApiKey: []byte("over tcp"), Uuid: "1", ExpiresAt: timestamppb.Now()}}, nil
}

func kind() string { return "hostile-" + os.Args[0] }

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "listen:", err)
		os.Exit(1)
	}
	address := l.Addr().String()
	switch os.Args[0] {
	case "outside":
		address = "192.0.2.1:443"
	case "sixth":
		address = "[::1]:443"
	}
	fmt.Printf("1|1|tcp|%s|grpc\n", address)
	s := grpc.NewServer()
	akms.RegisterScopeValidatorServiceServer(s, validator{})
	akms.RegisterCredentialVenderServiceServer(s, vender{})
	_ = s.Serve(l)
}

package store_test

import (
	"testing"

	"github.com/sallyport-project/sallyport/internal/store/storetest"
)

func TestSQLite_Conformance(t *testing.T) { storetest.Run(t, storetest.Files()) }

func TestPostgreSQL_Conformance(t *testing.T) { storetest.Run(t, postgres(t).Engine()) }

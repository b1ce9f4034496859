module evoke

go 1.21

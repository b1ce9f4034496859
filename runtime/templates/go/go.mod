module {{name}}

go 1.21

require evoke v0.0.0

replace evoke => ./sdk
